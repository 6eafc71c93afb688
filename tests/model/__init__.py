"""A real model on a real server behind the gateway: `uv run just model`."""
