"""Where a figure was measured: without it, a figure means nothing."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("tidegate", "httptools", "msgspec", "uvloop")


def describe() -> dict[str, Any]:
    """The machine, the versions, the moment and the command line."""
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", *_module(), *sys.argv[1:]]),
    }


def _module() -> list[str]:
    spec = sys.modules["__main__"].__spec__
    return [spec.name] if spec is not None else [sys.argv[0]]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
