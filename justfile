# The developer's one entry: `uv run just`. `uv run just --list` is the help.

set positional-arguments

# What to run before every commit: format, lint, types, imports, unit tests.
default: check unit

# Everything that needs no test run.
check: fmt-check lint types imports

# Rewrite the code in the house format.
fmt:
    uv run ruff format
    uv run ruff check --fix

[private]
fmt-check:
    uv run ruff format --check

# Find mistakes by reading.
lint:
    uv run ruff check

# Check every type, strictly; and that macOS has all that we call.
types:
    uv run mypy
    uv run mypy --platform darwin --cache-dir .mypy_cache/darwin src

# Check that imports point one way.
imports:
    uv run lint-imports

# All tests.
test *args:
    uv run pytest "$@"

# Pure code: no sockets, no processes, seconds.
unit *args:
    uv run pytest tests/unit tests/repo "$@"

# One suite per port, every adapter.
contract *args:
    uv run pytest tests/contract "$@"

# Input and expected output as files.
golden *args:
    uv run pytest tests/golden "$@"

# Real processes, a user's story each.
e2e *args:
    uv run pytest tests/e2e "$@"

# The console in a real Chromium.
browser *args:
    TIDEGATE_REQUIRE_BROWSER=1 uv run pytest tests/browser "$@"

# A real model on llama.cpp's server behind the gateway; installs 340 MB of it first.
model *args:
    TIDEGATE_REQUIRE_MODEL=1 uv run --group model pytest tests/model -n 0 "$@"

# Measure, and write bench/results/.
bench *args:
    uv run python -m bench "$@"

# Rewrite the generated pages of docs/reference/.
docs:
    uv run python docs/generate.py

# The longest files and functions: information, nothing fails on it.
sizes:
    uv run python -m tests.repo.sizes

# Play the incident.
demo *args:
    uv run tidegate demo "$@"

# Gateway and console for the project in the current folder.
[no-cd]
serve *args:
    uv run --project "{{ justfile_directory() }}" tidegate serve "$@"
