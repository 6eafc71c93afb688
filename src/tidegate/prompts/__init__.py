"""Prompt files → registry → ledger; rendering."""
