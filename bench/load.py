"""
What a call and a streamed chunk cost the gateway, beside nginx's `proxy_pass`: `uv run python -m bench.load [--quick]`.

Everything is on: a key, limits, a budget, the exact cache (no two requests are the same), content in every record.
nginx, a relay that is the least a gateway in Python can be (bench.relay), and the gateway take turns in front of one
provider, on one CPU; the provider and the clients have the other. CPU is user and system time from /proc, of the
gateway process and, apart, of recorder, console and supervisor beside it. Figures of different machines do not compare;
the ratios are of one round each, and the median of the rounds counts.

Needs nginx and two CPUs. Prints a table, writes results/load.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from bench.latency import free_port, places, process, stay
from bench.machine import RESULTS, describe

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
WORDS = 64
MANY = 1_000
NGINX = """\
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
CONFIG = """\
providers:
  up: {{dialect: openai, base_url: "http://127.0.0.1:{provider}/v1", api_key: sk-upstream}}
routes:
  gpt-4.1: {{targets: [up/gpt-4.1], cache: {{exact: {{ttl_s: 60}}}}}}
limits:
  total: {{requests_per_minute: 100000000, tokens_per_minute: 1000000000000, concurrent: 100000}}
  each_key: {{requests_per_minute: 100000000}}
budgets:
  total: {{day: 1000000}}
prices: {{up/gpt-4.1: {{input: 2, output: 8}}}}
gateway: {{port: {gateway}}}
console: {{port: {console}}}
"""


class Standing:
    """A gateway or a proxy that runs, and what its processes have used."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    def processes(self) -> dict[int, str]:
        """Pid → the end of its command line, of the whole tree."""
        parents = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit():
                    parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        mine = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in mine}

    def cpu_us(self) -> dict[str, float]:
        """Of the gateway itself, and of all processes together."""
        used = {"gateway": 0.0, "all": 0.0}
        for pid, command in self.processes().items():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent = (int(fields[11]) + int(fields[12])) * TICK_US
            used["all"] += spent
            used["gateway"] += spent if "--only recorder" not in command and "--only console" not in command else 0
        return used

    def rss_mib(self) -> float:
        """Of the gateway process."""
        pid = next((pid for pid, command in self.processes().items() if "--only gateway" in command), self.pid)
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


@contextlib.contextmanager
def nginx(provider: int, cpus: set[int] | None) -> Iterator[Standing]:
    """The baseline: bytes are moved, nothing is looked at."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, provider=provider, port=port))
        here = os.sched_getaffinity(0)
        stay(cpus)
        child = subprocess.Popen([found_nginx(), "-c", str(config), "-p", folder])
        stay(here)
        try:
            yield Standing(child.pid, ready(port, ""))
        finally:
            child.terminate()
            child.wait()


@contextlib.contextmanager
def relay(provider: int, cpus: set[int] | None) -> Iterator[Standing]:
    """The floor: bytes are moved by Python, nothing is looked at."""
    with process("-m", "bench.relay", str(provider), cpus=cpus, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield Standing(child.pid, ready(int(child.stdout.readline()), ""))
        child.stdout.close()


@contextlib.contextmanager
def tidegate(provider: int, cpus: set[int] | None) -> Iterator[tuple[Standing, str]]:
    """The gateway with everything on, and the key it asks for."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        config = Path(folder, "tidegate.yaml")
        config.write_text(CONFIG.format(provider=provider, gateway=port, console=free_port()))
        command = [sys.executable, "-m", "tidegate", "keys", "create", "bench", "--role", "caller", "--json"]
        made = subprocess.run([*command, "--config", str(config)], check=True, capture_output=True, text=True)
        key = str(json.loads(made.stdout)["key"])
        with process("-m", "tidegate", "serve", "--config", str(config), cpus=cpus, stdout=subprocess.DEVNULL) as child:
            yield Standing(child.pid, ready(port, key)), key


def found_nginx() -> str:
    """Raises SystemExit where there is none."""
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise SystemExit("bench: nginx is what is measured against; install it (Debian: nginx-light).")
    return path


def ready(port: int, key: str) -> int:
    """`port`, once a real answer comes from there."""
    body = b'{"model":"gpt-4.1","messages":[{"role":"user","content":"ready?"}],"max_tokens":1}'
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=5)) as asking:
            asking.request("POST", "/v1/chat/completions", body, headers)
            if b"thirty days" in asking.getresponse().read():
                return port
        time.sleep(0.1)
    raise SystemExit("bench: no answer came within 30 s")


def load(port: int, connections: int, seconds: float, *options: str) -> dict[str, Any]:
    """What bench.client counted."""
    command = [sys.executable, "-m", "bench.client", str(port), str(connections), str(seconds), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    tally: dict[str, Any] = json.loads(done.stdout)
    return tally


def costs(standing: Standing, per: int, *asked: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Microseconds of CPU for each of `per` things in an answer; and the tally."""
    before = standing.cpu_us()
    tally = load(standing.port, *asked)
    time.sleep(1)  # the recorder is a second behind
    after = standing.cpu_us()
    count = max(1, tally["answers"] * per)
    return {name: round((after[name] - before[name]) / count, 2) for name in after}, tally


def one_round(provider: int, cpus: set[int] | None, seconds: float) -> dict[str, Any]:
    """All three, one after the other."""
    found: dict[str, Any] = {}
    stream = ("--words", str(WORDS))
    direct = load(provider, 64, seconds, *stream)["first_ms"]
    light = load(provider, 2, seconds, *stream)["first_ms"]

    def measure(name: str, standing: Standing, key: str) -> None:
        mine: dict[str, Any] = {}
        asked = ("--key", key) if key else ()
        load(standing.port, 32, 2, *asked)  # warm-up
        mine["unary_us"], tally = costs(standing, 1, 32, seconds, *asked)
        bad, calls = tally["bad"], tally["answers"]
        mine["chunk_us"], tally = costs(standing, WORDS + 1, 64, seconds, *stream, *asked)
        mine["added_first_byte_ms"] = round(tally["first_ms"] - direct, 4)
        bad += tally["bad"]
        few = load(standing.port, 2, seconds, *stream, *asked)
        mine["added_first_byte_light_ms"] = round(few["first_ms"] - light, 4)
        mine |= {"calls": calls, "streams": tally["answers"], "bad": bad + few["bad"]}
        found[name] = mine

    with nginx(provider, cpus) as standing:
        measure("nginx", standing, "")
    with relay(provider, cpus) as standing:
        measure("relay", standing, "")
    with tidegate(provider, cpus) as (standing, key):
        measure("tidegate", standing, key)
        mine = found["tidegate"]
        asked = ("--key", key, *stream, "--dialect", "anthropic")
        mine["crossing_chunk_us"], tally = costs(standing, WORDS + 1, 64, seconds, *asked)
        mine["bad"] += tally["bad"]
    with tidegate(provider, cpus) as (standing, key):  # anew: what the cache holds by now is not what streams cost
        mine["idle_rss_mib"] = round(standing.rss_mib(), 1)
        mine[f"rss_mib_{MANY}_streams"], bad = most_memory(
            standing, lambda: load(standing.port, MANY, seconds, "--words", "32", "--every-ms", "250", "--key", key)
        )
        mine["bad"] += bad
    return found


def most_memory(standing: Standing, work: Callable[[], dict[str, Any]]) -> tuple[float, int]:
    """The most that the gateway held in memory meanwhile, and what was bad."""
    over = threading.Event()
    seen = [0.0]

    def look() -> None:
        while not over.wait(0.2):
            seen.append(standing.rss_mib())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        bad = int(work()["bad"])
    finally:
        over.set()
        looking.join()
    return round(max(seen), 1), bad


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, of figures and of each round's own ratios."""
    compared = (("gateway", "tidegate", "gateway"), ("all", "tidegate", "all"), ("relay", "relay", "all"))
    ratios = {
        f"{part}_{name}": [one[who][f"{part}_us"][whose] / one["nginx"][f"{part}_us"]["all"] for one in rounds]
        for part in ("unary", "chunk")
        for name, who, whose in compared
    }
    figures = {who: middle([one[who] for one in rounds]) for who in ("tidegate", "relay", "nginx")}
    return {"ratio_to_nginx": middle(zip_values(ratios)), **figures}


def zip_values(columns: dict[str, list[float]]) -> list[dict[str, float]]:
    """Columns → rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every figure, by name."""
    return {
        name: middle([row[name] for row in rows])
        if isinstance(value, dict)
        else round(median(row[name] for row in rows), 3)
        for name, value in rows[0].items()
    }


def main() -> None:
    """Prints what was measured, and writes it unless it is --quick."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=(__doc__ or "").strip().split("\n\n", 1)[0]
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to see that all works; writes nothing")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here, there = places()
    machine = describe()
    rounds = []
    with process("-m", "bench.provider", cpus=here, stdout=subprocess.PIPE) as provider:
        assert provider.stdout is not None
        port = int(provider.stdout.readline())
        provider.stdout.close()
        stay(here)
        for number in range(1 if options.quick else options.rounds):
            rounds.append(one_round(port, there, 1.5 if options.quick else 5))
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", file=sys.stderr)
    result = {**summary(rounds), "rounds": rounds, "pinned": here is not None, "machine": machine}
    print(json.dumps({name: result[name] for name in ("ratio_to_nginx", "tidegate", "relay", "nginx")}, indent=2))
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "load.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
