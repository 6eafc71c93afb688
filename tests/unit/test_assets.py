"""The console's chart bundle, where it can not be had."""

from __future__ import annotations

import pytest

from tidegate.console.assets import write_bundle
from tidegate.core.errors import Unusable


def test_a_bundle_that_takes_too_long_is_told_as_such() -> None:
    """Also: V8 on a machine that is busy enough."""
    with pytest.raises(Unusable, match=r"no chart bundle after 0\.001 s"):
        write_bundle(timeout_s=0.001)
