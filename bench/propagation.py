"""
A registry of 5,000 prompts with 20 versions each: how long a gateway takes to start, and to take up one deploy.

    uv run python -m bench.propagation [--prompts 5000] [--versions 20] [--postgres]

`swap_ms` is all that is done for one deploy, from asking what changed to the new snapshot. `stall_ms` is the longest
that the event loop was late in the 0.3 s after each deploy, file writing included; `idle_stall_ms` the same without any
deploy: on a busy machine it is not zero. `start_s` is from the start of the process to its first answer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import insert

from bench.machine import RESULTS, describe
from tidegate.core.artifact import Artifact, Input, Message, Output, canonical, from_canonical
from tidegate.prompts.live import LivePrompts
from tidegate.prompts.registry import Registry
from tidegate.prompts.snapshot_file import SnapshotFile
from tidegate.simulate.stage import free_port
from tidegate.stores.control import open_control
from tidegate.stores.schema import artifacts, deployments, pointers, versions
from tidegate.system import SystemClock, SystemRandom

AT = "2026-03-01T12:00:00.000000Z"
ROUNDS = 20
START_S = 60
TEXT = canonical(
    Artifact(
        messages=(
            Message("system", "Version MARK. Answer only from the context, as JSON. " * 6),
            Message("user", "Context: {{ context }}\n\nQuestion: {{ question }}"),
        ),
        model="local/m-2026-03-01",
        params={"temperature": 0.2, "max_output_tokens": 300},
        inputs={"question": Input(), "context": Input()},
        output=Output("schema", {"type": "object", "properties": {"answer": {"type": "string"}}}),
    )
).decode()


def fill(control: Path | str, prompts: int, versions_each: int) -> None:
    """Writes the tables at once; what deploys would have left, but for the hashes."""
    with closing(open_control(control)) as store, store._database.writing.begin() as connection:
        for first in range(0, prompts, 250):
            rows: dict[str, list[dict[str, Any]]] = {"artifacts": [], "versions": [], "deployments": [], "pointers": []}
            for name in (f"team{number % 50}/prompt{number}" for number in range(first, min(first + 250, prompts))):
                own, digest = {"project": "default", "prompt": name}, ""
                for number in range(1, versions_each + 1):
                    body = TEXT.replace("MARK", f"{name} {number}")
                    digest = hashlib.sha256(body.encode()).hexdigest()
                    rows["artifacts"].append({"project": "default", "digest": digest, "body": body})
                    rows["versions"].append(
                        {
                            **own,
                            "number": number,
                            "digest": digest,
                            "created_at": AT,
                            "description": "",
                            "file_sha256": "",
                        }
                    )
                live = {"environment": "production", "who": "bench"}
                move = {"to_version": versions_each, "to_digest": digest, "at": AT, "reason": "", "forced": False}
                seal = {"id": name, "action": "deploy", "prev_hash": "", "hash": digest}
                rows["deployments"].append({**own, **live, **move, **seal})
                rows["pointers"].append({**own, **live, "version": versions_each, "digest": digest, "since": AT})
            for table in (artifacts, versions, deployments, pointers):
                connection.execute(insert(table), rows[table.name])


async def swaps(control: Path | str, folder: Path) -> dict[str, Any]:
    """Deploys while a task watches how late the loop is."""
    with closing(registry(control)) as ours, closing(registry(control)) as theirs:
        prompts = LivePrompts(ours, SystemClock(), SnapshotFile(folder / "snapshot.json", "default"))
        began = time.perf_counter()
        await prompts.refresh()
        load_s = time.perf_counter() - began
        gc.freeze()  # as the gateway does
        following = asyncio.create_task(prompts.run())
        await asyncio.sleep(2)
        idle = [await lateness() for _ in range(ROUNDS)]
        snapshot, took, seen, late = theirs.snapshot(), [], [], []
        for number in range(ROUNDS):
            name = f"team{number}/prompt{number}"
            await asyncio.to_thread(theirs.deploy, name, "v1", who="bench")
            began = time.perf_counter()
            late.append(await lateness())
            live = prompts.live(name, "production")
            assert live is not None
            assert live.version == 1
        for number in range(ROUNDS):
            name = f"team{number}/prompt{number}"
            await asyncio.to_thread(theirs.deploy, name, "v2", who="bench")
            began = time.perf_counter()
            while (live := prompts.live(name, "production")) is None or live.version != 2:  # noqa: ASYNC110  # as a call
                await asyncio.sleep(0.002)
            seen.append(time.perf_counter() - began)
        for number in range(ROUNDS):
            theirs.deploy(f"team{number}/prompt{number}", "v3", who="bench")
            began = time.perf_counter()
            snapshot = theirs.snapshot(snapshot)
            took.append(time.perf_counter() - began)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return {
        "load_s": round(load_s, 3),
        "swap_ms": spread(took),
        "deploy_to_served_ms": spread(seen),
        "stall_ms": spread(late),
        "idle_stall_ms": spread(idle),
        "snapshot_file_mb": round((folder / "snapshot.json").stat().st_size / 1e6, 2),
    }


async def lateness() -> float:
    """The most that a 1 ms timer was late in 0.3 s."""
    loop, worst = asyncio.get_running_loop(), 0.0
    end = loop.time() + 0.3
    while (now := loop.time()) < end:
        await asyncio.sleep(0.001)
        worst = max(worst, loop.time() - now - 0.001)
    return worst


def starts(control: Path | str, folder: Path) -> dict[str, Any]:
    """From the start of a gateway process to its first answer."""
    seconds, ready = [], {}
    port = free_port(0)
    where = "control: {url: '${env:DATABASE_URL}'}\n" if isinstance(control, str) else ""
    (folder / "tidegate.yaml").write_text(
        f"providers: {{local: {{base_url: 'http://127.0.0.1:9/v1'}}}}\ngateway: {{port: {port}}}\n{where}"
    )
    for _ in range(3):
        began = time.perf_counter()
        command = [sys.executable, "-m", "tidegate", "serve", "--only", "gateway", "--config", str(folder)]
        gateway = subprocess.Popen(command)
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                    seconds.append(time.perf_counter() - began)
                    ready = json.load(answer)
                    break
            except OSError:
                if gateway.poll() is not None or time.perf_counter() - began > START_S:
                    raise
                time.sleep(0.005)
        gateway.terminate()
        gateway.wait()
    return {"start_s": [round(value, 2) for value in seconds], "readyz": ready}


def registry(control: Path | str) -> Registry:
    return Registry(open_control(control), SystemClock(), SystemRandom(), protects=[])


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) for name, share in at.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--postgres", action="store_true", help="the empty database of DATABASE_URL, not a SQLite file")
    options = parser.parse_args()
    from_canonical(TEXT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".tidegate").mkdir()
        control = os.environ["DATABASE_URL"] if options.postgres else folder / ".tidegate" / "control.db"
        began = time.perf_counter()
        fill(control, options.prompts, options.versions)
        print(f"filled in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(swaps(control, folder))
        figures |= starts(control, folder)
    sizes = {
        "prompts": options.prompts,
        "versions": options.versions,
        "store": "postgres" if options.postgres else "sqlite",
    }
    result = {"machine": describe(), **sizes, **figures}
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"propagation-{sizes['store']}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
