"""What `tidegate lint` finds in tidegate.yaml beyond what makes it invalid, and in the models that prompts name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from tidegate.config import PUBLIC_BASE_URLS, Config
from tidegate.core.artifact import Artifact
from tidegate.core.document import Document
from tidegate.core.errors import InvalidFile, Problem, nearest_model
from tidegate.core.notice import Notice
from tidegate.core.place import Path, dotted
from tidegate.upstream.model_ids import pinned

SECRETS = ("api_key", "secret_access_key", "session_token", "service_account", "access_token")
"""Of a provider. An access_key_id is none: it stands in every request that it signs."""


class Serving(Protocol):
    """Names that a model may begin with: those of a tidegate.yaml, here or on a server."""

    @property
    def routes(self) -> Collection[str]: ...
    @property
    def providers(self) -> Collection[str]: ...


def lint_config(document: Document, config: Config) -> Iterator[Notice]:
    """Warnings about a valid configuration."""
    for name, provider in config.providers.items():
        for key in SECRETS:
            secret = getattr(provider, key)
            if secret is not None and not secret.get_secret_value().strip().startswith("${"):
                message = f"holds the secret itself. Write a reference, such as {_reference(name, key)}, and renew it."
                yield _warning(document, ("providers", name, key), "literal-api-key", message)
    url = config.control.url
    if url is not None and not url.get_secret_value().strip().startswith("${") and "@" in url.get_secret_value():
        message = "holds the user and password themselves. Write a reference, such as ${env:DATABASE_URL}."
        yield _warning(document, ("control", "url"), "literal-api-key", message)
    for name, route in config.routes.items():
        for index, target in enumerate(route.targets):
            yield from lint_model(document, ("routes", name, "targets", index), target, None)


def lint_model(document: Document, at: Path, model: str, serving: Serving | None) -> Iterator[Notice]:
    """
    What is wrong with a model that is named at `at`: nobody has it (with `serving` only), or it is not pinned.

    A route's name says nothing about pins: its targets do, in tidegate.yaml.
    """
    if serving is not None:
        if model in serving.routes:
            return
        provider, slash, rest = model.partition("/")
        if not slash or not rest or provider not in serving.providers:
            hint = nearest_model(model, serving.routes, serving.providers) + _how_to_add(provider)
            message = f"no route and no provider of tidegate.yaml serves {model!r}.{hint}"
            yield Notice("error", document.file, document.line(at), dotted(at), "unknown-model", message)
            return
    if not pinned(model):
        message = (
            f"{model!r} is not a dated pin: what answers under this name can change without a new version."
            " Name a snapshot, such as gpt-4.1-2025-04-14."
        )
        yield _warning(document, at, "undated-model", message)


def _how_to_add(provider: str) -> str:
    """The line that a tidegate.yaml lacks, where a model names an inventor by its usual name."""
    if provider not in PUBLIC_BASE_URLS:
        return ""
    reference = _reference(provider, "api_key")
    return f' Under `providers:` write `{provider}: {{dialect: {provider}, api_key: "{reference}"}}`.'


def require_models(document: Document, artifact: Artifact, serving: Serving) -> None:
    """Raises InvalidFile, with file:line, when nobody in `serving` has a prompt's model or one of its fallbacks."""
    places: list[tuple[Path, str]] = [(("model",), artifact.model)]
    places += [(("fallbacks", index), model) for index, model in enumerate(artifact.fallbacks)]
    found = [notice for at, model in places for notice in lint_model(document, at, model, serving)]
    problems = [Problem(n.file, n.line, n.field, n.message) for n in found if n.level == "error"]
    if problems:
        raise InvalidFile(problems)


def _warning(document: Document, at: Path, rule: str, message: str) -> Notice:
    return Notice("warning", document.file, document.line(at), dotted(at), rule, message)


def _reference(provider: str, key: str) -> str:
    if key == "service_account":
        return "${file:/run/secrets/service-account.json}"
    name = "".join(char if char.isalnum() else "_" for char in provider)
    return f"${{env:{name.upper()}_{key.upper()}}}"
