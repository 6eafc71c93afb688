"""
Targets: provider + model + credential, compiled once from the configuration.

A target holds everything an attempt needs as ready strings; the credential is resolved here and nowhere else, and
nothing in a client's request can change where a target points.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from tidegate.config import Config, Provider, Route, Timeouts, Unsupported
from tidegate.core.errors import BadInput, InvalidRequest, UnknownModel, Unusable, nearest_model
from tidegate.core.pricing import Ceiling, Rates, ceiling
from tidegate.dialects import anthropic, bedrock, counting, gemini, openai_chat, openai_embeddings, openai_responses
from tidegate.dialects.dialect import Wire
from tidegate.ports import Prices
from tidegate.upstream.credentials import resolve, resolve_text
from tidegate.upstream.google_token import ServiceAccount
from tidegate.upstream.hosts import Azure, Host, Vertex
from tidegate.upstream.signing import Signer
from tidegate.upstream.sigv4 import SigV4

MAX_DYNAMIC_TARGETS = 1_024
MAX_SHOWN_CHARS = 1_024
_PRINTABLE = "".join(map(chr, range(32, 127)))
log = logging.getLogger("tidegate.upstream")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
OWN_HEADERS = (("content-type", "application/json"), ("user-agent", "tidegate"))
PROVIDER_DIALECTS: Mapping[str, tuple[Wire, ...]] = {
    "openai": (openai_chat.DIALECT, openai_embeddings.DIALECT, openai_responses.DIALECT),
    "openai_responses": (openai_responses.DIALECT,),
    "anthropic": (anthropic.DIALECT, counting.ANTHROPIC),
    "gemini": (gemini.DIALECT, counting.GEMINI),
    "azure": (openai_chat.DIALECT, openai_embeddings.DIALECT, openai_responses.DIALECT),
    "bedrock": (bedrock.DIALECT,),
    "vertex": (gemini.DIALECT,),
}
AWS_SERVICE = "bedrock"
"""What calls of Bedrock's runtime are signed for."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a provider is reached and told who calls; shared by its targets."""

    secret: str | None = field(default=None, repr=False)
    """Sent in a header as it is."""
    signer: Signer | None = field(default=None, repr=False)
    """Where a credential must be made for every call."""
    host: Host | None = None
    """Where a cloud serves the dialect in its own way."""


Head = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes."""

    provider: str
    model: str
    origin: str
    """`https://host[:port]`."""
    base_path: str
    dialects: tuple[Wire, ...]
    """What this provider speaks, its first language first."""
    native: bool
    """It is the inventor of its dialect, or a cloud that serves it; not a compatible server."""
    access: Access
    rates: Rates | None
    forward: tuple[str, ...] = ()
    """Of a client's headers, in lower case: those that go along."""
    returned: tuple[str, ...] = ()
    """Of an answer's headers, in lower case: those that its client sees."""
    ceiling: Ceiling | None = field(init=False)
    """The most that its tokens cost, for who reserves money before a call."""
    name: str = field(init=False)
    """`provider/model`."""
    shown: str = field(init=False)
    """`name` as a header can hold it: all but visible ASCII is percent-encoded, as a model may be called anything."""
    _heads: dict[tuple[str, bool], Head] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ceiling", None if self.rates is None else ceiling(self.rates))
        object.__setattr__(self, "name", f"{self.provider}/{self.model}")
        object.__setattr__(self, "shown", quote(self.name, _PRINTABLE, errors="replace"))

    def head(self, wire: Wire, *, stream: bool) -> Head:
        """Path and headers of a request to this target; they are the same for every call."""
        head = self._heads.get((wire.name, stream))
        if head is None:
            head = self._heads[(wire.name, stream)] = (self.path(wire, stream=stream), self.headers(wire))
        return head

    def path(self, wire: Wire, *, stream: bool) -> str:
        """Where a request to this target goes."""
        host = self.access.host
        if host is None:
            return self.base_path + wire.path(self.model, stream=stream)
        return self.base_path + host.path(wire, self.model, stream=stream)

    def headers(self, wire: Wire) -> tuple[tuple[str, str], ...]:
        """What a request to this target carries: ours, the dialect's, and the credential; never a client's."""
        access = self.access
        if access.secret is None:
            return (*OWN_HEADERS, *wire.headers)
        named = wire.credential(access.secret) if access.host is None else access.host.credential(wire, access.secret)
        return (*OWN_HEADERS, *wire.headers, named)

    def passed(self, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Which of a client's headers go along: where its trace stands, and what the provider's configuration names."""
        named, trace = self.named(headers), headers.get("traceparent")
        return named if trace is None or not _TRACEPARENT.fullmatch(trace) else (*named, ("traceparent", trace))

    def named(self, headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Those of them that may make another answer of it."""
        return tuple([(name, headers[name]) for name in self.forward if name in headers]) if self.forward else ()

    def shown_headers(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """What a client sees of an answer's headers, under names that are not our own."""
        told = [(name, self.redact(headers[name])) for name in self.returned if name in headers]
        return [(f"x-tidegate-provider-{name}", value[:MAX_SHOWN_CHARS]) for name, value in told]

    def refuses_in(self, wire: Wire) -> bool:
        """Whether the body of its errors is what a client of this dialect understands."""
        host = self.access.host
        return wire in self.dialects and (host is None or host.refuses_in(wire))

    def redact(self, text: str) -> str:
        """`text` without this target's credential, should the provider have echoed it."""
        access = self.access
        text = text.replace(access.secret, "[redacted]") if access.secret else text
        return text if access.signer is None else access.signer.redact(text)


@dataclass(frozen=True, slots=True)
class Path:
    """What a model name leads to: targets in the order they are tried, under one policy."""

    route: str | None
    targets: tuple[Target, ...]
    retries: int
    timeouts: Timeouts
    unsupported: Unsupported
    """What follows when a target can not be told all that the client said."""
    exact_ttl_s: float | None = None
    """How long the answer to the same request is given again; None: never."""
    models: tuple[str, ...] = field(init=False)
    """`provider/model` of each target."""
    ceilings: tuple[Ceiling, ...] = field(init=False)
    """Of the targets whose price is known."""
    tries: int = field(init=False)
    """The most that one call makes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple([target.name for target in self.targets]))
        known = [target.ceiling for target in self.targets if target.ceiling is not None]
        object.__setattr__(self, "ceilings", tuple(known))
        object.__setattr__(self, "tries", len(self.targets) * (self.retries + 1))


class Targets:
    """Model names → paths. Built from one configuration; safe for concurrent calls."""

    def __init__(self, config: Config, prices: Prices) -> None:
        """Raises BadInput for a route whose credential is missing, or whose price where that is asked for."""
        self._providers = config.providers
        self._prices = prices
        self._priced = tuple(config.prices)
        self._unpriced_pass = config.prices_unknown == "flag"
        self._default = Route(targets=["-/-"])
        self._caches = config.caches
        self.unsupported: Unsupported = config.unsupported
        """Where no route says otherwise."""
        self._access: dict[str, Access] = {}
        self._unusable: set[str] = set()
        """Whose credential is missing, which was said."""
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
            message = f"no route, provider/model or prompt:NAME is called {model[:200]!r}.{self._meant(model[:200])}"
            raise UnknownModel(message, param="model")
        try:
            target = self._target(model)
        except BadInput as error:
            # The caller can not mend the operator's configuration, and need not know its names.
            if provider not in self._unusable:
                log.error("provider %s can not be used: %s", provider, error)
                self._unusable.add(provider)
            raise Unusable(f"provider {provider!r} is not usable: its credential is missing on the server.") from error
        if not self._may_cost(target):
            raise InvalidRequest(
                f"{model[:200]} is not called: its price is not known here. The operator can give it under `prices`.",
                param="model",
            )
        return self._path(None, [target], self._default)

    def _meant(self, model: str) -> str:
        """What to call instead: a model that lacks its provider, or has its name a little wrong, gets it."""
        listed = self.models()
        for provider in self._providers:
            full = f"{provider}/{model}"
            if full in listed or self._prices.rates(provider, model) is not None:
                return f" Did you mean {full!r}?"
        return nearest_model(model, self._routes, self._providers)

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
        exact = self._caches.exact if policy.cache is None else policy.cache.exact
        return Path(
            name,
            tuple(targets),
            policy.retries,
            policy.timeouts,
            policy.unsupported or self.unsupported,
            None if exact is None else exact.ttl_s,
        )

    def _target(self, name: str) -> Target:
        provider_name, _, model = name.partition("/")
        provider = self._providers[provider_name]
        url = urlsplit(provider.url)
        if provider_name not in self._access:
            self._access[provider_name] = _access(provider_name, provider)
        return Target(
            provider=provider_name,
            model=model,
            origin=f"{url.scheme}://{url.netloc}",
            base_path=url.path,
            dialects=_dialects(provider, model),
            native=provider.native,
            access=self._access[provider_name],
            forward=provider.passed_headers,
            returned=tuple(provider.return_headers),
            rates=self._prices.rates(provider_name, model),
        )


def _dialects(provider: Provider, model: str) -> tuple[Wire, ...]:
    """What a provider speaks. Compatible servers rarely know OpenAI's Responses."""
    if provider.dialect == "vertex" and model.startswith("claude"):
        return (anthropic.DIALECT,)
    spoken = PROVIDER_DIALECTS[provider.dialect]
    knows_responses = provider.native or provider.responses
    if (knows_responses and provider.api_version is None) or len(spoken) == 1:
        return spoken
    return tuple(dialect for dialect in spoken if dialect is not openai_responses.DIALECT)


def _access(name: str, provider: Provider) -> Access:
    """Resolves a provider's credentials. Raises BadInput with the field of the one that is missing."""
    field = f"providers.{name}"
    secret = _resolved(provider.api_key, f"{field}.api_key")
    match provider.dialect:
        case "azure":
            return Access(secret, host=Azure(provider.api_version))
        case "bedrock" if secret is None:
            return Access(signer=_aws(provider, field))
        case "vertex":
            return _vertex(provider, secret, field)
    return Access(secret)


def _aws(provider: Provider, field: str) -> SigV4:
    """Of the configuration, or by the names that AWS's own tools go by."""
    own = provider.access_key_id is not None
    token = _resolved(provider.session_token, f"{field}.session_token")
    if not own and os.environ.get("AWS_SESSION_TOKEN"):
        token = resolve("${env:AWS_SESSION_TOKEN}", f"{field}.session_token")
    return SigV4(
        access_key_id=_resolved(provider.access_key_id, f"{field}.access_key_id")
        or resolve("${env:AWS_ACCESS_KEY_ID}", f"{field}.access_key_id"),
        secret_access_key=_resolved(provider.secret_access_key, f"{field}.secret_access_key")
        or resolve("${env:AWS_SECRET_ACCESS_KEY}", f"{field}.secret_access_key"),
        session_token=token,
        region=provider.region or "",
        service=AWS_SERVICE,
    )


def _vertex(provider: Provider, secret: str | None, field: str) -> Access:
    place = "/v1" if provider.project is None else f"/v1/projects/{provider.project}/locations/{provider.location}"
    token = _resolved(provider.access_token, f"{field}.access_token")
    signer = None
    if provider.service_account is not None:
        named = f"{field}.service_account"
        signer = ServiceAccount(resolve_text(provider.service_account.get_secret_value(), named), named)
    return Access(secret or token, signer, Vertex(place, bearer=token is not None))


def _resolved(reference: SecretStr | None, field: str) -> str | None:
    return None if reference is None else resolve(reference.get_secret_value(), field)
