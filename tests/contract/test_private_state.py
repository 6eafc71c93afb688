"""What was said in calls is on disk for whoever serves them, and for nobody else on the machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.config import Config, Project
from tidegate.console.assets import keep
from tidegate.gateway.claim import Claim
from tidegate.private import make_private
from tidegate.stores.control import open_control
from tidegate.system import SystemClock
from tidegate.telemetry.recorder import Recorder
from tidegate.telemetry.spool import SpoolWriter


def _control(project: Project) -> None:
    with closing(open_control(project.control, project="default")) as store:
        store.generation()


def _claim(project: Project) -> None:
    claim = Claim(project.lock)
    claim.take()
    claim.release()


def _spool(project: Project) -> None:
    with closing(SpoolWriter(project.spool, clock=SystemClock(), writer_id="w", fsync_s=1, segment_s=1)) as spool:
        spool.append(b"{}")


def _recorder(project: Project) -> None:
    Recorder(project.spool, project.lake).once()


def _cache(project: Project) -> None:
    keep(project.state / "cache" / "x", b"x")


WRITERS: list[Callable[[Project], None]] = [_control, _claim, _spool, _recorder, _cache]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    before = os.umask(0o022)
    yield Project(tmp_path, Config())
    os.umask(before)


@pytest.mark.parametrize("write", WRITERS)
def test_whoever_writes_first_makes_the_state_folder_for_its_owner_alone(
    project: Project, write: Callable[[Project], None]
) -> None:
    write(project)
    assert stat.S_IMODE(project.state.stat().st_mode) == 0o700


def test_a_folder_that_was_opened_to_others_stays_so(project: Project) -> None:
    project.state.mkdir(mode=0o750)
    for write in WRITERS:
        write(project)
    assert stat.S_IMODE(project.state.stat().st_mode) == 0o750


def test_a_file_in_the_way_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(FileExistsError):
        make_private(tmp_path / "state")
    with pytest.raises(NotADirectoryError):
        make_private(tmp_path / "state" / "spool")
