"""The contract of ports.Upstream, against raw servers that are scripted in the test."""
