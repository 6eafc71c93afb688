"""The demo's stage: where it puts its project, and which ports it takes."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from tidegate.core.errors import BadInput
from tidegate.simulate import stage as module
from tidegate.simulate.stage import Stage


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of ports are files there; other tests play the demo meanwhile."""
    (tmp_path / "claims").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "claims"))


def test_two_demos_at_once_share_no_port(tmp_path: Path) -> None:
    """Neither listens yet when the other chooses."""
    with Stage(tmp_path / "a") as a, Stage(tmp_path / "b") as b:
        a.copy_example("support-bot")
        b.copy_example("support-bot")
        assert not set(a.ports.values()) & set(b.ports.values())


def test_a_port_is_free_again_when_its_demo_has_ended(tmp_path: Path) -> None:
    with Stage(tmp_path / "a") as a:
        a.copy_example("support-bot")
    for file in (tmp_path / "claims").iterdir():
        with file.open("w") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with Stage(tmp_path / "a") as a, pytest.raises(BadInput, match=r"/a is not a folder\. Name a new one with --dir\."):
        a.copy_example("support-bot")


def test_a_folder_that_can_not_be_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only file system needs root to make, and root is whom permissions do not stop."""

    def refuse(_file: Path, _data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with Stage(tmp_path / "a") as a, pytest.raises(BadInput, match=r"/a can not be written: Read-only file system\."):
        a.copy_example("support-bot")


def test_the_state_of_someone_who_played_in_the_example_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "example"
    (source / ".tidegate").mkdir(parents=True)
    (source / "tidegate.yaml").write_text("providers: {}\n")
    (source / ".tidegate" / "control.db").touch()
    monkeypatch.setattr(module, "example", lambda _name: source)
    with Stage(tmp_path / "a") as a:
        a.copy_example("support-bot")
        assert sorted(file.name for file in a.folder.iterdir()) == ["tidegate.yaml"]
