"""How the control store's tables came to be, one file per change; run by `stores/migrate.py`."""
