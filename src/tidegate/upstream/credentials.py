"""
Secret references become secrets here, in the adapter that sends them, and nowhere else.

`${env:NAME}`, `${file:/path}`, or the secret itself. Configuration, dumps and logs hold the reference only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tidegate.core.errors import BadInput

FILE_LIMIT = 64 << 10
_REFERENCE = re.compile(r"\$\{(?:env:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?P<file>/[^}\0]+))\}")
_SENDABLE = re.compile(r"[!-~]+")


def resolve(reference: str, field: str) -> str:
    """
    The secret behind `reference`, without surrounding white space. Blocking: reads a file.

    `field` (`providers.openai.api_key`) names it in errors. Raises BadInput when it is missing or can not be sent in a
    header; the message shows the reference, never the value.
    """
    value = resolve_text(reference, field)
    if not _SENDABLE.fullmatch(value):
        name = reference.strip() if reference.strip().startswith("${") else "the value"
        raise BadInput(
            f"{field}: {name} is empty or holds characters that no key has (spaces, line breaks, non-ASCII)."
        )
    return value


def resolve_text(reference: str, field: str) -> str:
    """As `resolve`, for a secret that is a document and no header."""
    text = reference.strip()
    if not text.startswith("${"):
        return text
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise BadInput(f"{field}: a reference is ${{env:NAME}} or ${{file:/absolute/path}}.")
    return _environment(field, text, found["env"]) if found["env"] else _file(field, text, found["file"])


def _environment(field: str, reference: str, name: str) -> str:
    if name not in os.environ:
        raise BadInput(f"{field}: {reference} is not set. Set {name} in the environment of this process.")
    return os.environ[name].strip()


def _file(field: str, reference: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(FILE_LIMIT).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadInput(f"{field}: {reference} is not a text file.") from None
    except OSError as error:
        raise BadInput(f"{field}: {reference} can not be read: {error.strerror}.") from error
