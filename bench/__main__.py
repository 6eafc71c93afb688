"""`uv run python -m bench`: every measurement, one after the other."""

from __future__ import annotations

import subprocess
import sys

MEASUREMENTS = ("micro", "latency")

if __name__ == "__main__":
    for name in MEASUREMENTS:
        print(f"\n{name}")
        code = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode
        if code:
            sys.exit(code)
