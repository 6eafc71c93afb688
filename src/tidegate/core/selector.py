"""What names one version of a prompt for good: `v3`, or the first 6 and more hex digits of its digest."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"v[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


def is_number(selector: str) -> bool:
    """Whether it reads as `v3`."""
    return _NUMBER.fullmatch(selector) is not None


def is_digest(selector: str) -> bool:
    """Whether it reads as a digest or its beginning; one may also be the name of a git ref."""
    return _DIGEST.fullmatch(selector) is not None


def means(selector: str, number: int | None, digest: str) -> bool:
    """Whether it names this very version; an environment's name never does, whatever it points at."""
    return selector == f"v{number}" or (is_digest(selector) and digest.startswith(selector))
