"""One gateway per state folder."""

import fcntl
import os
import sys
import threading
from pathlib import Path

import pytest

from tidegate.core.errors import BadInput
from tidegate.gateway.claim import Claim, running_gateway


def test_the_second_gateway_of_a_folder_is_told_where_the_first_one_is(tmp_path: Path) -> None:
    lock = tmp_path / "shop" / ".tidegate" / "gateway.lock"
    first = Claim(lock)
    first.take()
    try:
        first.publish("http://127.0.0.1:4000")
        with pytest.raises(BadInput) as refused:
            Claim(lock).take()
    finally:
        first.release()
    at = f"{tmp_path}/shop at http://127.0.0.1:4000, as process {os.getpid()}"
    assert str(refused.value) == f"a gateway already serves {at}. Stop it first."
    assert running_gateway(lock) is None


def test_who_only_looks_whether_a_gateway_runs_keeps_none_from_starting(tmp_path: Path) -> None:
    """Looking takes the lock for a moment, which is longer where the machine is busy; `serve` looks all the time."""
    lock = tmp_path / "gateway.lock"
    looks = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looks, fcntl.LOCK_SH)
    moment = threading.Timer(0.1, os.close, (looks,))
    moment.start()
    claim = Claim(lock)
    claim.take()
    moment.join()
    claim.release()


def test_a_gateway_that_begins_is_not_where_the_last_one_was(tmp_path: Path) -> None:
    lock = tmp_path / "gateway.lock"
    for _ in range(2):
        claim = Claim(lock)
        claim.take()
        assert running_gateway(lock) is None
        claim.publish("http://127.0.0.1:4000")
        assert running_gateway(lock) is not None
        claim.release()


def test_a_file_where_the_state_folder_goes_is_named(tmp_path: Path) -> None:
    (tmp_path / ".tidegate").touch()
    with pytest.raises(BadInput, match=r"/\.tidegate is in the way"):
        Claim(tmp_path / ".tidegate" / "gateway.lock").take()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_can_not_be_written_is_bad_input() -> None:
    """Nobody can make a folder in /proc, not even root."""
    with pytest.raises(BadInput, match=r"can not be written: .+\. Make the folder writable\."):
        Claim(Path("/proc/self/.tidegate/gateway.lock")).take()
