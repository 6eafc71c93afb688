"""The simulated provider: a real HTTP server with scripted models, latencies and faults."""
