"""
Whose a thought signature is. Only the provider that made one can take it back.

Gemini's own enters the canonical shape under a seal, and only a sealed one is ever sent to Gemini. What another
dialect's provider signed reaches a Gemini client inside a signature of ours, and comes back out of it as it was.
"""

from __future__ import annotations

import base64
import binascii

from tidegate.core import chat

SEAL = "gemini:"
NONE = "skip_thought_signature_validator"
"""What Google documents to send for a call that another model made: Gemini 3 refuses one without a signature."""
_SIGNED = b"tidegate:signature:"
_REDACTED = b"tidegate:redacted:"


def sealed(signature: str) -> chat.Thinking:
    """A signature from Gemini, as a thought that says nothing."""
    return chat.Thinking(signature=SEAL + signature)


def unsealed(signature: str | None) -> str | None:
    """The signature as Gemini made it; None when Gemini did not."""
    return signature.removeprefix(SEAL) if signature is not None and signature.startswith(SEAL) else None


def wrapped(signature: str | None, redacted: str | None) -> str | None:
    """Another provider's signature or redacted thought as a Gemini client carries it: base64, as the client expects."""
    if redacted is not None:
        return base64.b64encode(_REDACTED + redacted.encode()).decode()
    return None if signature is None else base64.b64encode(_SIGNED + signature.encode()).decode()


def from_client(signature: str | None) -> chat.Thinking | None:
    """The thought, without its words, that a client's thoughtSignature stands for; None for none."""
    if signature is None or signature == NONE:
        return None
    try:
        # SDKs write bytes in either alphabet of base64.
        inside = base64.b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
        if inside.startswith(_SIGNED):
            return chat.Thinking(signature=inside.removeprefix(_SIGNED).decode())
        if inside.startswith(_REDACTED):
            return chat.Thinking(redacted=inside.removeprefix(_REDACTED).decode())
    except (binascii.Error, ValueError):
        pass
    return sealed(signature)
