"""Judges: models that grade answers. kinds.py says what they are asked, verdict.py what counts as their answer."""
