"""A Google service account's key file, made once for all tests of a process."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL = "gateway@acme.iam.gserviceaccount.com"


@cache
def private_key() -> RSAPrivateKey:
    return generate_private_key(65_537, 2_048)


GOOGLES = "https://oauth2.googleapis.com/token"


def key_file(token_uri: str = GOOGLES, **changes: Any) -> str:
    pem = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    content = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "k1",
        "private_key": pem,
        "client_email": EMAIL,
        "token_uri": token_uri,
        **changes,
    }
    return json.dumps(content, indent=2)


def claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Head and claims of a JSON Web Token that this account signed. Raises InvalidSignature."""
    signed, _, signature = token.rpartition(".")
    private_key().public_key().verify(_bytes(signature), signed.encode(), PKCS1v15(), SHA256())
    head, said = (json.loads(_bytes(part)) for part in signed.split("."))
    return head, said


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
