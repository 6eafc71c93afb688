"""Adapters of the control store."""
