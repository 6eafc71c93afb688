"""One call, from request to record. Read `pipeline.py` first."""
