"""
Targets: provider + model + credential, compiled once from the configuration.

A target holds everything an attempt needs as ready strings; the credential is resolved here and nowhere else, and
nothing in a client's request can change where a target points.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import urlsplit

from tidegate.config import Config, Provider, Route, Timeouts, Unsupported
from tidegate.core.errors import BadInput, InvalidRequest, UnknownModel, Unusable, nearest
from tidegate.core.pricing import Rates
from tidegate.dialects import anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Dialect
from tidegate.ports import Prices
from tidegate.upstream.credentials import resolve

MAX_DYNAMIC_TARGETS = 1_024
log = logging.getLogger("tidegate.upstream")
OWN_HEADERS = (("content-type", "application/json"), ("user-agent", "tidegate"))
PROVIDER_DIALECTS: Mapping[str, tuple[Dialect, ...]] = {
    "openai": (openai_chat.DIALECT, openai_embeddings.DIALECT, openai_responses.DIALECT),
    "anthropic": (anthropic.DIALECT,),
    "gemini": (gemini.DIALECT,),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes."""

    provider: str
    model: str
    origin: str
    """`https://host[:port]`."""
    base_path: str
    dialects: tuple[Dialect, ...]
    """What this provider speaks, its first language first."""
    native: bool
    """It is the inventor of its dialect, not a compatible server."""
    secret: str | None = field(repr=False)
    rates: Rates | None

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.model}"

    def headers(self, wire: Dialect) -> tuple[tuple[str, str], ...]:
        """What a request to this target carries: ours, the dialect's, and the credential; never a client's."""
        credential = () if self.secret is None else (wire.credential(self.secret),)
        return (*OWN_HEADERS, *wire.headers, *credential)

    def redact(self, text: str) -> str:
        """`text` without this target's credential, should the provider have echoed it."""
        return text.replace(self.secret, "[redacted]") if self.secret else text


@dataclass(frozen=True, slots=True)
class Path:
    """What a model name leads to: targets in the order they are tried, under one policy."""

    route: str | None
    targets: tuple[Target, ...]
    retries: int
    timeouts: Timeouts
    unsupported: Unsupported
    """What follows when a target can not be told all that the client said."""


class Targets:
    """Model names → paths. Built from one configuration; safe for concurrent calls."""

    def __init__(self, config: Config, prices: Prices) -> None:
        """Raises BadInput for a route whose credential is missing, or whose price where that is asked for."""
        self._providers = config.providers
        self._prices = prices
        self._priced = tuple(config.prices)
        self._unpriced_pass = config.prices_unknown == "flag"
        self._default = Route(targets=["-/-"])
        self.unsupported: Unsupported = config.unsupported
        """Where no route says otherwise."""
        self._secrets: dict[str, str | None] = {}
        self._dynamic = lru_cache(MAX_DYNAMIC_TARGETS)(self._single)
        self._routes: Mapping[str, Path] = {name: self._route(name, route) for name, route in config.routes.items()}

    def find(self, model: str, fallbacks: tuple[str, ...] = ()) -> Path:
        """
        The path of a route's name or of provider/model, and then of each of `fallbacks`, under the first one's policy.

        Raises UnknownModel with the nearest names.
        """
        path = self._routes.get(model) or self._dynamic(model)
        if not fallbacks:
            return path
        more = [target for name in fallbacks for target in self.find(name).targets]
        return replace(path, targets=(*path.targets, *more))

    def models(self) -> list[str]:
        """`provider/model`, as far as the configuration tells: what routes lead to, and what has a price of its own."""
        named = {target.name for path in self._routes.values() for target in path.targets}
        return sorted(named | {name for name in self._priced if name.partition("/")[0] in self._providers})

    def names(self) -> list[str]:
        """The routes, for `/v1/models` and for suggestions."""
        return sorted(self._routes)

    def _single(self, model: str) -> Path:
        provider, slash, name = model.partition("/")
        if not slash or not name or provider not in self._providers:
            known = [*self._routes, *(f"{provider}/…" for provider in self._providers)]
            raise UnknownModel(
                f"no route, provider/model or prompt:NAME is called {model[:200]!r}.{nearest(model, known)}",
                param="model",
            )
        try:
            target = self._target(model)
        except BadInput as error:
            # The caller can not mend the operator's configuration, and need not know its names.
            log.error("provider %s can not be used: %s", provider, error)
            raise Unusable(f"provider {provider!r} is not usable: its credential is missing on the server.") from error
        if not self._may_cost(target):
            raise InvalidRequest(
                f"{model[:200]} is not called: its price is not known here. The operator can give it under `prices`.",
                param="model",
            )
        return self._path(None, [target], self._default)

    def _route(self, name: str, route: Route) -> Path:
        targets = [self._target(target) for target in route.targets]
        for target in targets:
            if not self._may_cost(target):
                raise BadInput(
                    f"routes.{name}: nobody knows the price of {target.name}. Give it under `prices`, or set "
                    "`prices_unknown: flag`."
                )
        return self._path(name, targets, route)

    def _may_cost(self, target: Target) -> bool:
        """Whether the policy lets calls go where nobody can say what they cost."""
        return self._unpriced_pass or target.rates is not None

    def _path(self, name: str | None, targets: list[Target], policy: Route) -> Path:
        return Path(name, tuple(targets), policy.retries, policy.timeouts, policy.unsupported or self.unsupported)

    def _target(self, name: str) -> Target:
        provider_name, _, model = name.partition("/")
        provider = self._providers[provider_name]
        url = urlsplit(provider.url)
        secret = self._secret(provider_name, provider)
        return Target(
            provider=provider_name,
            model=model,
            origin=f"{url.scheme}://{url.netloc}",
            base_path=url.path,
            dialects=_dialects(provider),
            native=provider.base_url is None,
            secret=secret,
            rates=self._prices.rates(provider_name, model),
        )

    def _secret(self, name: str, provider: Provider) -> str | None:
        if name not in self._secrets:
            key = provider.api_key
            self._secrets[name] = None if key is None else resolve(key.get_secret_value(), f"providers.{name}.api_key")
        return self._secrets[name]


def _dialects(provider: Provider) -> tuple[Dialect, ...]:
    """What a provider speaks. Compatible servers rarely know OpenAI's Responses."""
    spoken = PROVIDER_DIALECTS[provider.dialect]
    if provider.base_url is None or provider.responses:
        return spoken
    return tuple(dialect for dialect in spoken if dialect is not openai_responses.DIALECT)
