"""
One gateway per state folder: an flock says who, a 0600 file beside it says where it listens and its internal key.

Other commands read it to send their calls through that gateway, so that its limits hold for them too.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.core.errors import BadInput
from tidegate.private import make_private

TRIES, PAUSE_S = 50, 0.01
"""How long a gateway waits for those who only look."""


class Address(msgspec.Struct, frozen=True):
    """Where the gateway of a folder is to be found."""

    url: str
    internal_key: str
    pid: int


class Claim:
    """Held by a gateway for its lifetime; the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._fd: int | None = None
        self.internal_key = f"tgi_{secrets.token_urlsafe(32)}"

    def take(self) -> None:
        """Raises BadInput when another gateway serves this folder, or the folder can not be written."""
        try:
            make_private(self._lock.parent)
            self._fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            folder = self._lock.parent
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise BadInput(f"{folder} is in the way: state goes into a folder of that name. Move it.") from error
            raise BadInput(f"{folder} can not be written: {error.strerror}. Make the folder writable.") from error
        try:
            _hold(self._fd)
        except OSError as error:
            self.release()
            other = running_gateway(self._lock)
            where = f" at {other.url}, as process {other.pid}" if other else ""
            raise BadInput(f"a gateway already serves {self._lock.parent.parent}{where}. Stop it first.") from error
        _address_file(self._lock).unlink(missing_ok=True)  # the last one's: it is nobody's until this one listens

    def publish(self, url: str) -> None:
        """Says where this gateway listens."""
        address = msgspec.json.encode(Address(url, self.internal_key, os.getpid()))
        file = _address_file(self._lock)
        draft = file.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(address)
        draft.replace(file)

    def release(self) -> None:
        """Lets another gateway have the folder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _hold(fd: int) -> None:
    """Raises BlockingIOError where another gateway has it. Who only looks whether one runs has it for a moment, too."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(PAUSE_S)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def running_gateway(lock: Path) -> Address | None:
    """The gateway that holds this folder now, or None."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            return msgspec.json.decode(_address_file(lock).read_bytes(), type=Address)
        except (OSError, msgspec.DecodeError):
            return None
    finally:
        os.close(fd)
    return None


def _address_file(lock: Path) -> Path:
    return lock.with_name("gateway.json")
