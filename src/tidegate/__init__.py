"""Tidegate: prompts versioned like code, evals that gate the deploy, a gateway, and a record of every call."""
