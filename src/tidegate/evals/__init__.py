"""Golden set → checks → run → gate verdict → report."""
