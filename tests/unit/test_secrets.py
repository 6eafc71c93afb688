"""Keys by their shape: found with their kind, and words that only look like them left alone."""

from __future__ import annotations

import pytest

from tidegate.core.secrets import find_secrets, redact

RANDOM = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"
# Put together here, so that no scanner of repositories takes them for real ones.
KEYS = {
    "an OpenAI-style API key": "sk-" + "proj-" + RANDOM,
    "an Anthropic API key": "sk-" + "ant-api03-" + RANDOM,
    "a Stripe key": "sk" + "_live_" + RANDOM,
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a GitHub token": "ghp" + "_" + RANDOM + "abcd",
    "a GitLab token": "glpat" + "-" + RANDOM,
    "a Google API key": "AIza" + "Sy" + RANDOM + "a",
    "a Slack token": "xoxb" + "-1234567890-" + RANDOM,
    "a Hugging Face token": "hf" + "_" + RANDOM,
    "a Groq API key": "gsk" + "_" + RANDOM + RANDOM,
    "a JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiIxMjM0NTYifQ." + RANDOM,
    "a bearer token": "Bearer " + RANDOM,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_found_by_its_shape(kind: str) -> None:
    text = f"é: use {KEYS[kind]}, please"
    (found,) = find_secrets(text)
    assert (found.kind, text[found.start : found.end]) == (kind, KEYS[kind])
    assert redact(text) == "é: use [redacted], please"


@pytest.mark.parametrize(
    "text",
    [
        "ask-me-anything-about-your-orders-2026",
        "sk-learn-is-a-library-for-machine-learning",
        "sk-XXXXXXXXXXXXXXXXXXXXXXXX",
        "Authorization: Bearer {{ token }}",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE",
        "Authorization: Bearer 00000000000000000000000",
        "${env:OPENAI_API_KEY}",
        "AKIA is a prefix",
        "-----BEGIN PUBLIC KEY-----",
        "3f9a2c1d" * 8,
        "",
    ],
)
def test_words_are_left_alone(text: str) -> None:
    assert list(find_secrets(text)) == []
    assert redact(text) == text


def test_several_keys_are_found_in_order() -> None:
    text = "\n".join(KEYS.values())
    assert [secret.kind for secret in find_secrets(text)] == list(KEYS)
    assert all(key not in redact(text) for key in KEYS.values())
