"""`python -m tidegate.simulate`: the simulated provider as a process."""

from __future__ import annotations

import argparse
import asyncio
import errno
import math
import os
import signal
import sys

import uvloop

from tidegate.core.errors import BadInput
from tidegate.simulate.server import Latency, Simulator


def main() -> None:
    """Serves until SIGTERM, SIGINT, or, with --stdin-is-lifeline, the end of standard input."""
    options = _options()
    try:
        uvloop.run(_serve(options))
    except BadInput as error:
        sys.stderr.write(f"tidegate.simulate: {error}\n")
        sys.exit(error.exit_code)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tidegate.simulate",
        description="A simulated provider that speaks OpenAI Chat Completions. No model is behind it.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4010, help="0 takes any free port (default: 4010)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--latency-ms", type=float, default=35.0, help="median time to the first byte (default: 35)")
    parser.add_argument("--tokens-per-s", type=float, default=1_000.0, help="0 is without limit (default: 1000)")
    parser.add_argument("--sigma", type=float, default=0.35, help="spread of both, log-normal (default: 0.35)")
    parser.add_argument("--fault", action="append", default=[], metavar="LINE", help="such as 'status=503; p=0.1'")
    parser.add_argument("--stdin-is-lifeline", action="store_true", help="exit when standard input ends")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    latency = Latency(options.latency_ms / 1e3, options.tokens_per_s or math.inf, options.sigma)
    simulator = Simulator(
        host=options.host, port=options.port, seed=options.seed, latency=latency, script=options.fault
    )
    try:
        await simulator.__aenter__()
    except OSError as error:
        reason = "is already in use" if error.errno == errno.EADDRINUSE else f"can not be listened on: {error.strerror}"
        raise BadInput(f"{options.host}:{options.port} {reason}. Choose another with --port.") from error
    sys.stdout.write(f"simulated provider ready at {simulator.url}\n")
    sys.stdout.flush()
    try:
        await _told_to_stop(lifeline=options.stdin_is_lifeline)
    finally:
        await simulator.__aexit__()


async def _told_to_stop(*, lifeline: bool) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)

    def ended() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            told.set()

    if lifeline:
        try:
            loop.add_reader(0, ended)
        except OSError as error:
            raise BadInput("--stdin-is-lifeline needs a pipe as standard input.") from error
    await told.wait()


if __name__ == "__main__":
    main()
