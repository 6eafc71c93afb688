"""
What the gateway adds to one call, at one connection: `uv run python -m bench.latency [--check]`.

Starts the simulated provider (model `fixed`, no latency of its own) and `tidegate serve` with everything on, then sends
the same kind of request straight to the provider and through the gateway, in turns and in random order, over one
keep-alive connection each. Every body is different, so that nothing measures a cache. With two CPUs or more,
provider and gateway share one, and the client has the other, with recorder and console: both ways cross CPUs twice. (A
provider beside the client would make the straight way free of that, and the difference one of schedulers.)

Prints a table and writes results/latency.json. `--check` writes nothing, and exits 1 when the added p50 is over 0.4 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.machine import RESULTS, describe

LIMIT_MS = 0.4
ROUNDS = 6
PER_ROUND = 500
WARM_UP = 500
START_S = 30.0
STOP_S = 40.0
CONFIG = """\
providers:
  simulated: {{dialect: openai, base_url: "{url}"}}
gateway: {{port: {gateway}}}
console: {{port: {console}}}
"""


class Client:
    """One keep-alive connection and nothing else: what it costs is the same on both sides."""

    def __init__(self, port: int, model: str) -> None:
        self._model = model
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, question: str) -> int:
        """Nanoseconds from the request to the last byte of its answer."""
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": "You are a support assistant. Answer only from the context, as JSON."},
                {"role": "user", "content": f"Context: The shop is open on weekdays. Question: {question}"},
            ],
            "temperature": 0.2,
            "max_tokens": 300,
        }
        payload = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer sk-bench\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        request = head.encode() + payload
        began = time.perf_counter_ns()
        self._socket.sendall(request)
        answer = self._answer()
        took = time.perf_counter_ns() - began
        if not answer.startswith(b"HTTP/1.1 200 ") or b'"choices"' not in answer:
            raise SystemExit(f"bench: not an answer: {answer[:300]!r}")
        return took

    def _answer(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        size = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        while len(rest) < size:
            more = self._receive()
            data += more
            rest += more
        return data

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise SystemExit("bench: the connection was closed")
        return data

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def process(*command: str, cpus: set[int] | None, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child, and its children, on these CPUs until the block ends."""
    here = os.sched_getaffinity(0) if cpus else None
    stay(cpus)
    try:
        child = subprocess.Popen([sys.executable, *command], text=True, **options)
    finally:
        stay(here)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def places() -> tuple[set[int] | None, set[int] | None]:
    """A CPU for the client, and one for provider and gateway; None where there is no choice."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cpus = sorted(os.sched_getaffinity(0))
    return ({cpus[0]}, {cpus[1]}) if len(cpus) > 1 else (None, None)


def stay(cpus: set[int] | None) -> None:
    """Keeps this process, and children it starts from now on, on these CPUs."""
    if cpus:
        os.sched_setaffinity(0, cpus)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def connect(child: subprocess.Popen[str], port: int, model: str) -> Client:
    """A client, once the gateway listens."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            return Client(port, model)
        except OSError:
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: the gateway did not start (its reason is above)") from None
            time.sleep(0.05)


def measure(direct: Client, through: Client) -> list[dict[str, list[int]]]:
    """Nanoseconds per request, per round."""
    dice = random.Random(4)
    number = 0
    clients = {"direct": direct, "through": through}

    def turns(count: int) -> dict[str, list[int]]:
        nonlocal number
        taken: dict[str, list[int]] = {name: [] for name in clients}
        for _ in range(count):
            for name in dice.sample(list(clients), k=2):
                number += 1
                taken[name].append(clients[name].ask(f"{number}? " + "How do I reset it? " * dice.randrange(1, 9)))
        return taken

    turns(WARM_UP)
    return [turns(PER_ROUND) for _ in range(ROUNDS)]


def percentile_ms(nanoseconds: list[int], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(nanoseconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1e6


def summary(rounds: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Percentiles of all rounds together, and what each round alone would have said."""
    result: dict[str, Any] = {}
    whole = {name: [value for taken in rounds for value in taken[name]] for name in ("direct", "through")}
    for percent in (50, 99):
        direct, through = (percentile_ms(whole[name], percent) for name in ("direct", "through"))
        result[f"direct_p{percent}_ms"] = round(direct, 4)
        result[f"through_p{percent}_ms"] = round(through, 4)
        result[f"added_p{percent}_ms"] = round(through - direct, 4)
    result["requests_each"] = len(whole["direct"])
    result["added_p50_ms_by_round"] = [
        round(percentile_ms(taken["through"], 50) - percentile_ms(taken["direct"], 50), 4) for taken in rounds
    ]
    return result


def run() -> dict[str, Any]:
    """The whole measurement: its processes are gone when it returns."""
    here, there = places()
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, contextlib.ExitStack() as stack:
        simulate = ("-m", "tidegate.simulate", "--port", "0")
        simulator = stack.enter_context(process(*simulate, cpus=there, stdout=subprocess.PIPE))
        assert simulator.stdout is not None
        stack.callback(simulator.stdout.close)
        url = simulator.stdout.readline().split()[-1]
        gateway, console = free_port(), free_port()
        config = Path(folder) / "tidegate.yaml"
        config.write_text(CONFIG.format(url=url, gateway=gateway, console=console))
        serve = ("-m", "tidegate", "serve", "--config", str(config), "--only")
        server = stack.enter_context(process(*serve, "gateway", cpus=there))
        for other in ("recorder", "console"):
            stack.enter_context(process(*serve, other, cpus=here))
        through = connect(server, gateway, "simulated/fixed")
        stack.callback(through.close)
        direct = Client(int(url.split(":")[2].split("/")[0]), "fixed")
        stack.callback(direct.close)
        stay(here)
        rounds = measure(direct, through)
    return {"unary": summary(rounds), "pinned": here is not None, "machine": machine}


def main() -> None:
    """Prints what was measured; writes it, or checks it."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--check", action="store_true", help=f"exit 1 when the added p50 is over {LIMIT_MS} ms")
    options = parser.parse_args()
    result = run()
    unary = result["unary"]
    print(f"{unary['requests_each']} requests each way, one connection, {result['machine']['cpu']}\n")
    print("          direct   through     added")
    for percent in (50, 99):
        values = (unary[f"{side}_p{percent}_ms"] for side in ("direct", "through", "added"))
        print(f"p{percent} ms  " + "".join(f"{value:8.3f}  " for value in values))
    print("added p50 by round:", *(f"{value:.3f}" for value in unary["added_p50_ms_by_round"]))
    if options.check:
        sys.exit(unary["added_p50_ms"] > LIMIT_MS)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latency.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
