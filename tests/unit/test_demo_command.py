"""`tidegate demo` before it starts anything."""

import errno
import os
import tempfile

import pytest

from tidegate.cli.demo import demo_
from tidegate.core.errors import BadInput


def test_a_machine_without_a_scratch_folder_is_told_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(BadInput, match=r"^no scratch folder can be made: Read-only file system\. Name a folder with"):
        demo_()
