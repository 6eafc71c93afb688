"""`tidegate demo`: the incident every feature answers to, played with the real commands on real processes."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tidegate.cli.output import out, print_json
from tidegate.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidegate.simulate.stage import Stage


def demo_(
    *,
    dir: Annotated[Path | None, Parameter(name=["--dir", "-d"])] = None,  # noqa: A002 - the option's name
    once: bool = False,
    json: bool = False,
    seed: int = 7,
) -> None:
    """
    Play the incident: a friendly edit breaks the JSON, the gate sees it, it ships anyway, and is rolled back.

    Needs no API key and no network: the provider is simulated, and everything else is real. Afterwards gateway and
    console stay up until Ctrl-C.

    Example: `tidegate demo --once --json`

    Parameters
    ----------
    dir
        An empty folder to put the example project in, and to keep; by default a scratch folder.
    once
        End after the rollback instead of staying up.
    json
        Print a summary object instead of prose.
    seed
        Seed of the simulated model and of the simulated customers.
    """
    from tidegate.simulate.stage import Stage

    with _terminated_as_interrupt(), _folder(dir) as folder, Stage(folder) as stage:
        summary = _play(stage, quiet=json, seed=seed)
        if json:
            print_json(summary)
        if not once:
            _stay(stage, quiet=json)


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        yield named.resolve()
        return
    try:
        scratch = tempfile.TemporaryDirectory(prefix="tidegate-demo-")
    except OSError as error:
        raise BadInput(f"no scratch folder can be made: {error.strerror}. Name a folder with --dir.") from error
    with scratch:
        yield Path(scratch.name) / "support-bot"


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: by unwinding, so that its processes end with it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _play(stage: Stage, *, quiet: bool, seed: int) -> dict[str, Any]:
    from tidegate.cli.incident import Incident

    out.quiet = quiet
    try:
        # One loop for the whole story: Ctrl-C while another is being made would end in its half-made parts' complaints.
        with asyncio.Runner() as runner:
            incident = Incident(stage, runner, seed=seed)
            incident.provider()
            incident.first_version()
            incident.friendly_edit()
            incident.ship_it_anyway()
            incident.roll_back()
            return incident.summary()
    except KeyboardInterrupt:
        out.print("\n[dim]ending …[/dim]")
        raise
    finally:
        out.quiet = False


def _stay(stage: Stage, *, quiet: bool) -> None:
    from tidegate.cli.incident import where_next

    if not quiet:
        where_next(stage)
    pause = threading.Event()
    try:
        while stage.died() is None:
            pause.wait(0.5)
        out.print(f"[red]{stage.died()} has ended by itself; its log is in {stage.folder}.[/red]")
    except KeyboardInterrupt:
        if not quiet:
            out.print("\n[dim]ending, after the calls under way …[/dim]")
