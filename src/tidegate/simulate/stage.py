"""
The demo's stage: a scratch copy of an example project, the simulated provider and `tidegate serve`, as real processes.

Everything it starts ends with it: the children hold a pipe that ends when this process does, however it does.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import yaml

from tidegate.core.errors import BadInput, Unusable

READY_S = 30.0
STOP_S = 40.0
STATE = (".tidegate", "report")
DEFAULT_PORTS = {"provider": 4010, "gateway": 4000, "console": 4001}


class Stage:
    """One scratch project and its processes. Used as `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "tidegate.yaml"
        self.ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._claims = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._claims.close()

    def url(self, part: str) -> str:
        """`http://127.0.0.1:PORT` of provider, gateway or console."""
        return f"http://127.0.0.1:{self.ports[part]}"

    def copy_example(self, name: str) -> None:
        """Fills the folder with an example project, on free ports. Raises BadInput when something is in the way."""
        source = example(name)
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInput(f"{self.folder} is not a folder. Name a new one with --dir.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise BadInput(f"{self.folder} is not empty. Name a new folder with --dir.")
            _copy(source, self.folder)
        except OSError as error:
            raise BadInput(f"{self.folder} can not be written: {error.strerror}. Name another with --dir.") from error
        self.ports = {part: self._port(port) for part, port in DEFAULT_PORTS.items()}
        text = self.config.read_text("utf-8")
        text = text.replace(f"127.0.0.1:{DEFAULT_PORTS['provider']}", f"127.0.0.1:{self.ports['provider']}")
        settings = yaml.safe_load(text)
        for part in ("gateway", "console"):
            if self.ports[part] != DEFAULT_PORTS[part] or part in settings:
                text = text.rstrip("\n") + f"\n{part}: {{port: {self.ports[part]}}}\n"
        self.config.write_text(text, "utf-8")

    def start_provider(self, *options: str) -> None:
        """Starts the simulated provider and waits until it answers."""
        command = ["-m", "tidegate.simulate", "--port", str(self.ports["provider"]), "--stdin-is-lifeline", *options]
        self._start("provider", command, {})
        self._wait("provider", f"{self.url('provider')}/livez")

    def start_serve(self) -> None:
        """Starts gateway, recorder and console, and waits until the first and the last answer."""
        command = ["-m", "tidegate", "serve", "--config", str(self.config)]
        self._start("serve", command, {"TIDEGATE_LIFELINE": "stdin"})
        self._wait("serve", f"{self.url('gateway')}/livez")
        self._wait("serve", f"{self.url('console')}/livez")

    def pid(self, name: str) -> int:
        """The process id of `provider` or `serve`."""
        return self._processes[name].pid

    def died(self) -> str | None:
        """The name of a process that has ended by itself, or None."""
        return next((name for name, process in self._processes.items() if process.poll() is not None), None)

    def _port(self, preferred: int) -> int:
        """`preferred` when nothing listens there and no other demo is about to, else some free port."""
        try:
            file = Path(tempfile.gettempdir()) / f"tidegate-demo-{os.getuid()}-{preferred}"
            claim = self._claims.enter_context(file.open("w"))
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return free_port(0)
        return free_port(preferred)

    def _start(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        log = (self.folder / f".{name}.log").open("wb")
        with log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is ours to pass on, once the calls under way are done
            )

    def _wait(self, name: str, url: str) -> None:
        process, end = self._processes[name], time.monotonic() + READY_S
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own loopback address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        log = (self.folder / f".{name}.log").read_text("utf-8", "replace").strip()[-2_000:]
        raise Unusable(f"{name} did not answer at {url}.\n{log}")


def _copy(source: Path, folder: Path) -> None:
    """The files of an example."""
    for name, file in files_of(source).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.read_bytes())


def files_of(source: Path) -> dict[str, Path]:
    """The files of an example by their names inside it, without the state of whoever played with it in place."""
    found = {file.relative_to(source): file for file in sorted(source.rglob("*")) if file.is_file()}
    return {inside.as_posix(): file for inside, file in found.items() if inside.parts[0] not in STATE}


def example(name: str) -> Path:
    """The folder of an example project: inside the installed package, or in a checkout beside it."""
    package = Path(str(files("tidegate")))
    for folder in (package / "examples" / name, package.parents[1] / "examples" / name):
        if folder.is_dir():
            return folder
    raise Unusable(f"this installation does not carry the example {name!r}; install tidegate again.")


def free_port(preferred: int) -> int:
    """`preferred` when it is free on loopback, else some free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unusable("no free port on 127.0.0.1.")
