"""The way out: connection pool, targets, credentials."""
