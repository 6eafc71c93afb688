"""`tidegate demo`, as a newcomer runs it: a real process, an empty home, no key, no network."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

TIDEGATE = [sys.executable, "-m", "tidegate"]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "VIRTUAL_ENV")}
    return {**kept, "HOME": str(home)}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [*TIDEGATE, "demo", "--once", "--json"],
        cwd=home,
        env=environment(home),
        capture_output=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_gate_sees_what_the_edit_breaks_and_deploy_refuses_it(summary: dict[str, Any]) -> None:
    assert summary["v1"] == {"passed": 3, "cases": 3}
    assert summary["v2"] == {"passed": 2, "cases": 3}
    assert summary["gate"] == {"verdict": "FAIL", "exit_code": 1}
    assert summary["deploy_refused"] is True


def test_validity_splits_at_the_forced_version(summary: dict[str, Any]) -> None:
    assert summary["forced_version"] == "v2"
    assert summary["output_valid_rate"]["v1"] == 1.0
    assert 0.5 < summary["output_valid_rate"]["v2"] < 0.98
    assert summary["calls"]["v1"] >= 100
    assert summary["calls"]["v2"] >= 200


def test_every_call_has_a_cost_and_a_latency(summary: dict[str, Any]) -> None:
    assert 0 < summary["cost_per_request_usd"]["v1"] < summary["cost_per_request_usd"]["v2"] < 0.01
    assert 0 < summary["latency_s"]["p50"] <= summary["latency_s"]["p95"] < 5


def test_rollback_takes_less_than_a_second_to_the_first_call(summary: dict[str, Any]) -> None:
    assert summary["served_after_rollback"] == "v1"
    assert 0 < summary["rollback_seconds"] < 1.0


@pytest.mark.timeout(110)
def test_it_stays_up_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    playing = subprocess.Popen(
        [*TIDEGATE, "demo", "--json", "--dir", str(folder)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert playing.stdout is not None
    try:
        text = b""
        while not text.endswith(b"}\n"):
            line = playing.stdout.readline()
            assert line, "the demo ended early"
            text += line
            if line == b"}\n":
                break
        summary = json.loads(text)
        for url in (summary["console_url"], summary["gateway_url"].replace("/v1", "/livez")):
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own loopback address
                assert answer.status == 200
    finally:
        playing.send_signal(signal.SIGINT)
        _, errors = playing.communicate(timeout=45)
    assert playing.returncode == 0, errors.decode()
    assert "Traceback" not in errors.decode()
    deadline = time.monotonic() + 10
    while processes_about(folder):
        assert time.monotonic() < deadline, processes_about(folder)
        time.sleep(0.1)


def test_a_folder_in_use_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    done = subprocess.run(
        [*TIDEGATE, "demo", "--once", "--dir", str(tmp_path)],
        env=environment(tmp_path),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.decode().strip() == f"tidegate: {tmp_path} is not empty. Name a new folder with --dir."
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def processes_about(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found
