"""
tidegate.yaml → one frozen tree. Everything has a default; an unknown key is an error with a suggestion.

Secrets stay references (`${env:NAME}`, `${file:/path}`) in here; the adapter that needs one resolves it
(`upstream/credentials.py`), so that no dump, log or error can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator

from tidegate.core.address import Address
from tidegate.core.document import Document, Strict, parse_yaml, validate
from tidegate.core.errors import BadInput, InvalidFile, Problem, nearest, nearest_model

FILE = "tidegate.yaml"
MAX_BYTES = 1 << 20
PUBLIC_BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "openai_responses": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
CLOUDS = {
    "azure": ("api_version",),
    "bedrock": ("region", "access_key_id", "secret_access_key", "session_token"),
    "vertex": ("project", "location", "service_account", "access_token"),
}
"""Who serves the models of others → the keys that only they have."""
NAME_OF_PLACE = r"^[a-z][a-z0-9-]{0,40}$"
_ADDRESS = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NEVER_FORWARDED = frozenset(
    {
        *("authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "cookie2", "set-cookie"),
        *("host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("accept-encoding", "user-agent", "forwarded", "via", "x-real-ip", "traceparent", "anthropic-version"),
    }
)
"""A client's credentials, and what belongs to one connection or is tidegate's own to say."""
NEVER_FORWARDED_PREFIXES = ("x-tidegate-", "x-forwarded-", "x-amz-", "proxy-", "content-")
Unsupported = Literal["warn", "drop", "reject"]
Seconds = Annotated[float, Field(gt=0, le=86_400, strict=False)]
Scope = TypeVar("Scope", "Limit", "Caps")
Port = Annotated[int, Field(ge=0, le=65_535)]


class Provider(Strict):
    """One upstream account: a dialect, where it is, and a reference to its key."""

    dialect: Literal["openai", "openai_responses", "anthropic", "gemini", "azure", "bedrock", "vertex"] = "openai"
    """
    The wire format it speaks, or the cloud that it is: Azure OpenAI, Amazon Bedrock, Google's Vertex AI. A server of
    `openai_responses` speaks nothing but that.
    """
    base_url: str | None = None
    """Its address: with `/v1` for openai, `/v1beta` for gemini, no path for the others; by default the public one."""
    responses: bool = False
    """A compatible server at `base_url` speaks OpenAI's Responses besides Chat Completions; OpenAI itself does."""
    api_key: SecretStr | None = Field(default=None, strict=False)
    """Sent as its credential; write a reference, such as `${env:OPENAI_API_KEY}`."""
    api_version: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,40}$")] | None = None
    """Of azure: the older API of deployments, such as `2024-10-21`; by default the one at `/openai/v1`."""
    region: Annotated[str, Field(pattern=NAME_OF_PLACE)] | None = None
    """Of bedrock, such as `eu-central-1`."""
    access_key_id: SecretStr | None = Field(default=None, strict=False)
    """Of bedrock, where there is no api_key: whose key signs the calls. By default `${env:AWS_ACCESS_KEY_ID}`."""
    secret_access_key: SecretStr | None = Field(default=None, strict=False)
    """Of bedrock: what they are signed with. By default `${env:AWS_SECRET_ACCESS_KEY}`."""
    session_token: SecretStr | None = Field(default=None, strict=False)
    """Of bedrock, for a key that expires; by default `${env:AWS_SESSION_TOKEN}`, where the key is of there too."""
    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.:-]{0,62}$")] | None = None
    """Of vertex: the Google Cloud project; an api_key may know its own."""
    location: Annotated[str, Field(pattern=NAME_OF_PLACE)] = "global"
    """Of vertex, such as `europe-west4`."""
    service_account: SecretStr | None = Field(default=None, strict=False)
    """Of vertex: the JSON key file of a service account, as `${file:/path}`."""
    access_token: SecretStr | None = Field(default=None, strict=False)
    """Of vertex: an access token that somebody else renews, before a restart."""
    ca_file: str | None = None
    """Certificate authorities (PEM) to trust beside the system's. Paths start at the folder of this file."""
    client_cert: str | None = None
    """A client certificate (PEM) for mutual TLS."""
    client_key: str | None = None
    """Its private key (PEM, not encrypted), where it is not in `client_cert`."""
    forward_headers: Annotated[list[str], Field(max_length=32)] | None = None
    """Which headers of clients go up, besides `traceparent`; by default `anthropic-beta` to anthropic and vertex."""
    return_headers: Annotated[list[str], Field(max_length=32)] = []
    """Which headers of its answers clients see, each behind `x-tidegate-provider-`: its rate limits, its request id."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Open at once; further calls wait their turn, up to `connect_s`. By default 1,000."""
    simulated: bool = False
    """Not a real one but tidegate's own, which follows a fixed rule: commands that need it start it at `base_url`."""

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("a base_url starts with http:// or https://")
        try:
            url = urlsplit(value)
            whole = bool(url.hostname) and url.port != 0 and not set(value) & set("@?#")
        except ValueError:
            whole = False
        if not whole or not _ADDRESS.fullmatch(value):
            raise ValueError("a base_url is http:// or https://, a host, perhaps a port and a path, all in ASCII")
        return value

    @property
    def native(self) -> bool:
        """It is the inventor of its dialect, or the cloud it says: whatever the way to it, no look-alike."""
        return self.base_url is None or self.dialect in CLOUDS

    @field_validator("forward_headers")
    @classmethod
    def _passable(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no header's name in lower case")
            if name in NEVER_FORWARDED or name.startswith(NEVER_FORWARDED_PREFIXES):
                raise ValueError(f"{name} is of the client's way to tidegate: it never goes up")
        return value

    @field_validator("return_headers")
    @classmethod
    def _returnable(cls, value: list[str]) -> list[str]:
        for name in value:
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no header's name in lower case")
            if name == "set-cookie":
                raise ValueError("set-cookie is between tidegate and the provider: no client sees it")
        return value

    @property
    def passed_headers(self) -> tuple[str, ...]:
        """`forward_headers`, or its default."""
        if self.forward_headers is None:
            return ("anthropic-beta",) if self.dialect in ("anthropic", "vertex") else ()
        return tuple(self.forward_headers)

    @property
    def url(self) -> str:
        url = (self.base_url or PUBLIC_BASE_URLS.get(self.dialect) or self._cloud_url).rstrip("/")
        return url.removesuffix("/openai/v1") if self.dialect == "azure" else url

    @property
    def _cloud_url(self) -> str:
        if self.dialect == "bedrock":
            ending = "amazonaws.com.cn" if (self.region or "").startswith("cn-") else "amazonaws.com"
            return f"https://bedrock-runtime.{self.region}.{ending}"
        if self.location == "global":
            return "https://aiplatform.googleapis.com"
        if self.location in ("us", "eu"):
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"

    @property
    def origin(self) -> str:
        """`https://host[:port]`."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc}"

    @property
    def network(self) -> tuple[str | None, str | None, str | None, int | None]:
        """What is special about the way to it: ca_file, client_cert, client_key, max_connections."""
        return self.ca_file, self.client_cert, self.client_key, self.max_connections


class Timeouts(Strict):
    """Deadlines of one call. `total_s` spans all attempts; the others are of one attempt."""

    connect_s: Seconds = 5
    """To a connection, TLS included."""
    first_byte_s: Seconds = 60
    """From the request to the first byte of the answer."""
    idle_s: Seconds = 60
    """Between two pieces of a stream."""
    total_s: Seconds = 300
    """Over every attempt and the whole answer."""


class ExactCache(Strict):
    """The same request again gets the same answer, at no cost."""

    ttl_s: Annotated[float, Field(gt=0, le=30 * 86_400, strict=False)]
    """How long an answer is given again."""


class RouteCache(Strict):
    """Which answers are given again."""

    exact: ExactCache | None = None
    """To the same request; left out: none."""


class Caches(RouteCache):
    """Which answers are given again, of prompts and models that are called without a route too."""

    max_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 64 << 20
    """Of memory for all answers that are kept; the least recently used leave first."""


class Route(Strict):
    """A policy over targets: tried in order, each with its retries, under one total deadline."""

    targets: Annotated[list[str], Field(min_length=1)]
    """`provider/model`, in the order they are tried."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Of each target, before the next one is tried. One that answers 429 or asks for a wait is left for the next."""
    timeouts: Timeouts = Timeouts()
    unsupported: Unsupported | None = None
    """As at the top level, for this route."""
    cache: RouteCache | None = None
    """Which answers are given again; by default as under `caches`. `{}` turns it off for this route."""


class Listen(Strict):
    """Where a process listens. Without keys, only loopback is accepted."""

    host: str = "127.0.0.1"
    """An address of this machine; without client keys only loopback."""
    port: Port


class Gateway(Listen):
    """The choke point for calls."""

    port: Port = 4000
    """0 takes a free one."""
    max_body_bytes: Annotated[int, Field(ge=1_024, le=1 << 30)] = 10 << 20
    """Of a request; a larger one is refused with 413."""
    public_url: str | None = None
    """Its address for others, where a proxy stands before it: commands elsewhere make the calls of an eval there."""

    @field_validator("public_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("a public_url starts with http:// or https://")
        return value


class Console(Listen):
    """The pages and the admin API."""

    port: Port = 4001
    """0 takes a free one."""


class Telemetry(Strict):
    """What is kept of calls. Failed, invalid and eval calls keep their content always, the rest by `content_sample`."""

    content_sample: Annotated[float, Field(ge=0, le=1, strict=False)] = 1.0
    """The share of ordinary calls whose input and answer are kept."""
    fsync_s: Seconds = 1.0
    """How often the spool is flushed to disk: what a power loss may cost."""
    segment_s: Seconds = 5.0
    """The age at which a spool segment is sealed and handed to the recorder."""


class Control(Strict):
    """Where prompts, ledger and eval runs are kept. By default a SQLite file in `.tidegate/`."""

    url: SecretStr | None = Field(default=None, strict=False)
    """A Postgres database, as `postgresql://user:password@host:5432/name`; write a reference: `${env:DATABASE_URL}`."""


class GatePolicy(Strict):
    """The server's word on approvals: which environments take only a version with a passing gate run."""

    protects: list[str] = ["production"]
    """Names of environments."""
    second_approver: list[str] = []
    """Names of environments that also ask for `tidegate approve` by somebody other than who deploys."""


class TokenPrices(Strict):
    """Prices in US dollars per million tokens."""

    input: Annotated[Decimal, Field(ge=0, strict=False)]
    """Of an input token that is not cached."""
    output: Annotated[Decimal, Field(ge=0, strict=False)]
    """Of an output token, reasoning included."""
    cache_read: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of an input token read from the provider's cache; by default as `input`."""
    cache_write: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of an input token written to it; by default as `input`."""
    cache_write_1h: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of one written to be kept for an hour; by default as `cache_write`."""
    audio_input: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of a token of audio; by default as `input`."""
    audio_cache_read: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of a token of audio read from the cache; by default as `cache_read`."""
    audio_output: Annotated[Decimal, Field(ge=0, strict=False)] | None = None
    """Of a token of spoken answer; by default as `output`."""


class LongPrice(TokenPrices):
    """Prices of a whole call once its input is longer than `tokens`, in US dollars per million tokens."""

    tokens: Annotated[int, Field(ge=1)]
    """The longest input that is not at these prices yet, cached tokens included."""


class Price(TokenPrices):
    """A price of your own, in US dollars per million tokens."""

    above: list[LongPrice] = []
    """What calls with a long input cost; a call is at the prices of the highest number it is above of."""
    service_tiers: dict[str, Annotated[Decimal, Field(ge=0, strict=False)]] = {}
    """By the provider's word for it (`flex`, `priority`): what multiplies every price of a call served so."""


class Limit(Strict):
    """How many calls may be made; what is left out is not limited."""

    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """In any 60 seconds."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Likewise: of input and output, estimated before a call and put right after it."""
    concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """At once."""


class Caps(Strict):
    """What calls may cost, in US dollars; what is left out is not capped."""

    hour: Annotated[Decimal, Field(ge=0, le=10**9, strict=False)] | None = None
    """From each full hour on."""
    day: Annotated[Decimal, Field(ge=0, le=10**9, strict=False)] | None = None
    """From midnight on, in `timezone`."""
    month: Annotated[Decimal, Field(ge=0, le=10**9, strict=False)] | None = None
    """From the first midnight of a month on, in `timezone`."""


class Limits(Strict):
    """How many calls may be made: a call passes all limits that concern it, or gets 429 with the seconds to wait."""

    total: Limit | None = None
    """Of all calls together."""
    each_key: Limit | None = None
    """Of every key by itself."""
    keys: dict[str, Limit] = {}
    """By the name of a key; what is given here goes before `each_key`."""
    prompts: dict[str, Limit] = {}
    """By the name of a prompt."""
    models: dict[str, Limit] = {}
    """By the name of a route, or `provider/model`: calls that begin with it."""

    @property
    def given(self) -> bool:
        """There is one."""
        return self.each_key is not None or bool(self.names())

    def of(self, kind: str, name: str) -> Limit | None:
        """What is given for `total`, or for a `key`, `prompt` or `model`."""
        return _given(self.total, self.each_key, getattr(self, f"{kind}s", {}), kind, name)

    def path(self, kind: str, name: str, field: str) -> str:
        """Where the file says one field of it: `limits.each_key.concurrent`."""
        return f"limits.{_place(self, kind, name, field)}"

    def names(self) -> list[tuple[str, str]]:
        """Kind and name of all that is named."""
        return _named(self)


class Budgets(Strict):
    """What calls may cost: a call reserves its most in all budgets that concern it, or gets 402 or 429."""

    total: Caps | None = None
    """Of all calls together."""
    each_key: Caps | None = None
    """Of every key by itself."""
    keys: dict[str, Caps] = {}
    """By the name of a key; what is given here goes before `each_key`."""
    prompts: dict[str, Caps] = {}
    """By the name of a prompt."""
    models: dict[str, Caps] = {}
    """By the name of a route, whatever it calls, or `provider/model`: what it answers."""
    unbounded_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 4_096
    """Reserved for the answer to a call that does not bound it: only such a call can cost more than it reserved."""

    @property
    def given(self) -> bool:
        """There is one."""
        return self.each_key is not None or bool(self.names())

    def of(self, kind: str, name: str) -> Caps | None:
        """What is given for `total`, or for a `key`, `prompt` or `model`."""
        return _given(self.total, self.each_key, getattr(self, f"{kind}s", {}), kind, name)

    def path(self, kind: str, name: str, field: str) -> str:
        """Where the file says one field of it: `budgets.each_key.day`."""
        return f"budgets.{_place(self, kind, name, field)}"

    def names(self) -> list[tuple[str, str]]:
        """Kind and name of all that is named."""
        return _named(self)


def _given(total: Scope | None, each_key: Scope | None, names: dict[str, Scope], kind: str, name: str) -> Scope | None:
    if kind == "total":
        return total
    named = names.get(name)
    each = each_key if kind == "key" else None
    if named is None or each is None:
        return named or each
    left_out = each.model_fields_set - named.model_fields_set
    return named.model_copy(update={field: getattr(each, field) for field in left_out})


def _place(scopes: Limits | Budgets, kind: str, name: str, field: str) -> str:
    if kind == "total":
        return f"total.{field}"
    named = getattr(scopes, f"{kind}s").get(name)
    each = kind == "key" and (named is None or field not in named.model_fields_set)
    return f"each_key.{field}" if each else f"{kind}s.{name}.{field}"


def _named(scopes: Limits | Budgets) -> list[tuple[str, str]]:
    total = [("total", "")] if scopes.total is not None else []
    return total + [(kind, name) for kind in ("key", "prompt", "model") for name in getattr(scopes, f"{kind}s")]


class Config(Strict):
    """The whole of tidegate.yaml."""

    providers: dict[str, Provider] = {}
    """By a name of your choice; `NAME/model` calls one directly."""
    routes: dict[str, Route] = {}
    """By a name of your choice; a route is called by its name as the model."""
    gateway: Gateway = Gateway()
    console: Console = Console()
    telemetry: Telemetry = Telemetry()
    control: Control = Control()
    gate: GatePolicy = GatePolicy()
    caches: Caches = Caches()
    prices: dict[str, Price] = {}
    """`provider/model` → its price."""
    prices_unknown: Literal["flag", "reject"] = "flag"
    """A model that neither `prices` nor the catalogue knows has calls without a cost (`flag`), or is not called."""
    limits: Limits = Limits()
    budgets: Budgets = Budgets()
    unsupported: Unsupported = "warn"
    """What a provider's dialect can not say is dropped, with a header (`warn`) or without, or the call is refused."""
    timezone: str = "UTC"
    """Of pages and of budget windows; what is stored is UTC."""
    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = "default"
    """Stands in every record: `a-z`, `0-9`, `.`, `_` and `-`, at most 64."""

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception as error:
            raise ValueError("not a time zone name, such as Europe/Berlin or UTC") from error
        return value


class Project:
    """A user's project folder: its configuration and the places inside it."""

    def __init__(self, root: Path, config: Config, file: Path | None = None, *, server: Address | None = None) -> None:
        """
        Args:
            server: whose control store, records and gateway commands use, instead of this folder's.
        """
        self.root = root
        self.config = config
        self.server = server
        self.file = file or root / FILE

    @cached_property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @cached_property
    def state(self) -> Path:
        """`.tidegate/`: the embedded default's state. Made on first need by whoever writes there."""
        return self.root / ".tidegate"

    @property
    def control(self) -> Path:
        """The control store's file, unless `control.url` names a database."""
        return self.state / "control.db"

    @property
    def snapshot(self) -> Path:
        """What the gateway served last, for a start without the control store."""
        return self.state / "snapshot.json"

    @property
    def has_control(self) -> bool:
        """Whether there is a control store: one that is only read from need not be made."""
        return self.server is not None or self.config.control.url is not None or self.control.exists()

    @property
    def spool(self) -> Path:
        return self.state / "spool"

    @property
    def lake(self) -> Path:
        return self.state / "lake"

    @property
    def lock(self) -> Path:
        """Held by the gateway that serves this folder; `gateway.json` beside it says where it listens."""
        return self.state / "gateway.lock"


def load(file: Path, server: Address | None = None) -> Project:
    """Reads one tidegate.yaml. Raises InvalidFile with every problem, or BadInput when there is no such file."""
    return Project(file.resolve().parent, check(read(file)), file, server=server)


def read(file: Path) -> Document:
    """The file as written. Raises InvalidFile, or BadInput when there is no such file."""
    try:
        with file.open("rb") as opened:
            body = opened.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadInput(f"{file}: no such file. `tidegate init` makes a starter project.") from error
    except OSError as error:
        raise BadInput(f"{file}: can not be read: {error.strerror}.") from error
    if len(body) > MAX_BYTES:
        raise InvalidFile([Problem(str(file), 0, "", "is larger than 1 MiB.")])
    try:
        return parse_yaml(body.decode("utf-8-sig"), str(file))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidFile([Problem(str(file), line, "", "not valid UTF-8.")]) from error


def check(document: Document) -> Config:
    """The configuration that a document holds. Raises InvalidFile with every problem."""
    config = validate(document, Config)
    problems = [
        *_unknown_providers(document, config),
        *_bad_clouds(document, config),
        *_bad_networks(document, config),
        *_bad_simulations(document, config),
        *_unknown_models(document, config),
    ]
    if problems:
        raise InvalidFile(problems)
    return config


def _unknown_providers(document: Document, config: Config) -> Iterator[Problem]:
    for name, route in config.routes.items():
        for index, target in enumerate(route.targets):
            path = ("routes", name, "targets", index)
            provider, slash, model = target.partition("/")
            if not slash or not model:
                yield document.problem(path, f"{target!r} is not provider/model.")
            elif provider not in config.providers:
                hint = nearest(provider, config.providers)
                yield document.problem(path, f"no provider named {provider!r}.{hint}")


def _unknown_models(document: Document, config: Config) -> Iterator[Problem]:
    """Limits and budgets of what is never called."""
    for section, scopes in (("limits", config.limits), ("budgets", config.budgets)):
        for name in scopes.models:
            provider, slash, model = name.partition("/")
            if name not in config.routes and not (slash and model and provider in config.providers):
                hint = nearest_model(name, config.routes, config.providers)
                yield document.problem((section, "models", name), f"no route or provider/model {name!r}.{hint}")


def _bad_clouds(document: Document, config: Config) -> Iterator[Problem]:
    """What a provider lacks to be the cloud that it says, or has and can not use."""
    for name, provider in config.providers.items():
        path = ("providers", name)
        for cloud, keys in CLOUDS.items():
            for key in () if cloud == provider.dialect else keys:
                if key in provider.model_fields_set:
                    yield document.problem((*path, key), f"belongs to dialect: {cloud}.")
        for key, why in _missing(provider):
            yield document.problem((*path, key), why)


def _missing(provider: Provider) -> Iterator[tuple[str, str]]:
    if provider.dialect == "azure" and provider.base_url is None:
        yield "base_url", "is missing: every Azure resource has its own, such as https://NAME.openai.azure.com."
    elif provider.dialect == "bedrock":
        if provider.region is None:
            yield "region", "is missing, such as eu-central-1."
        if (provider.access_key_id is None) != (provider.secret_access_key is None):
            yield "access_key_id", "and secret_access_key go together: give both, or neither."
        elif provider.access_key_id is None and provider.session_token is not None:
            yield "session_token", "needs the access_key_id and the secret_access_key that it was given with."
        if provider.api_key is not None and provider.access_key_id is not None:
            yield "api_key", "is instead of an access key: give one of them."
    elif provider.dialect == "vertex":
        given = [key for key in ("api_key", "service_account", "access_token") if getattr(provider, key) is not None]
        if len(given) > 1:
            yield given[-1], f"is instead of {given[0]}: give one of them."
        if provider.project is None and provider.api_key is None:
            yield "project", "is missing: the id of the Google Cloud project."


def _bad_simulations(document: Document, config: Config) -> Iterator[Problem]:
    for name, provider in config.providers.items():
        here = re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d{0,4}/v1/?", provider.base_url or "")
        if provider.simulated and not (here and provider.dialect == "openai"):
            message = "needs dialect openai and a base_url on this machine, such as http://127.0.0.1:4010/v1."
            yield document.problem(("providers", name, "simulated"), message)


def _bad_networks(document: Document, config: Config) -> Iterator[Problem]:
    folder = Path(document.file).parent
    first: dict[str, str] = {}
    for name, provider in config.providers.items():
        path = ("providers", name)
        for key in ("ca_file", "client_cert", "client_key"):
            written = getattr(provider, key)
            if written is not None and not (folder / written).is_file():
                yield document.problem((*path, key), f"there is no file {folder / written}.")
        if provider.client_key is not None and provider.client_cert is None:
            yield document.problem((*path, "client_key"), "needs a client_cert, whose key it is.")
        other = first.setdefault(provider.origin, name)
        if config.providers[other].network != provider.network:
            keys = "ca_file, client_cert, client_key and max_connections"
            yield document.problem(path, f"is at the same address as {other!r}: give both the same {keys}.")


def find(start: Path, explicit: Path | None = None) -> Project:
    """The project of `--config F`, else of the nearest tidegate.yaml upwards. Raises BadInput, InvalidFile."""
    return load(locate(start, explicit))


def find_for(server: Address, start: Path, explicit: Path | None = None) -> Project:
    """As `find`, for a server: without a tidegate.yaml the nearest folder upwards that has prompts, or `start`."""
    if explicit is not None:
        return load(locate(start, explicit), server)
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return load(folder / FILE, server)
        if (folder / "prompts").is_dir():
            return Project(folder, Config(), server=server)
    return Project(here, Config(), server=server)


def locate(start: Path, explicit: Path | None = None) -> Path:
    """The tidegate.yaml that `find` reads. Raises BadInput when there is none."""
    if explicit is not None:
        return explicit / FILE if explicit.is_dir() else explicit
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    raise BadInput(
        f"no {FILE} in {here} or above it. Go to your project, name it with --config, or make one: `tidegate init`."
    )
