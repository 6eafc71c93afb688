"""Azure, Bedrock and Vertex as providers: where calls go, with which credential, and what a configuration lacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.repo.pages import parse
from tests.service_account import key_file
from tidegate.config import Config, Provider, check, read
from tidegate.core.document import parse_yaml, validate
from tidegate.core.errors import BadInput, InvalidFile
from tidegate.dialects.dialect import Wire
from tidegate.upstream.prices import PriceList
from tidegate.upstream.sigv4 import SigV4
from tidegate.upstream.targets import Target, Targets

KEY = "sk-canary"
AZURE = {"dialect": "azure", "base_url": "https://acme.openai.azure.com", "api_key": KEY}
BEDROCK = {"dialect": "bedrock", "region": "eu-central-1"}
VERTEX = {"dialect": "vertex", "project": "acme-prod", "location": "europe-west4", "access_token": KEY}


def target(model: str, **provider: Any) -> Target:
    config = Config.model_validate({"providers": {"cloud": provider}})
    prices = PriceList({}, {"cloud": provider["dialect"]} if config.providers["cloud"].native else {})
    [found] = Targets(config, prices).find(f"cloud/{model}").targets
    return found


def address(found: Target, wire: Wire | None = None, *, stream: bool = False) -> str:
    return found.origin + found.path(wire or found.dialects[0], stream=stream)


def credential(found: Target) -> tuple[str, str]:
    return found.headers(found.dialects[0])[-1]


# --- Azure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "/", "/openai/v1", "/openai/v1/"])
def test_azure_by_its_v1(ending: str) -> None:
    found = target("gpt-4.1", **{**AZURE, "base_url": AZURE["base_url"] + ending})
    chat, embeddings, responses = found.dialects
    assert address(found, chat) == "https://acme.openai.azure.com/openai/v1/chat/completions"
    assert address(found, embeddings) == "https://acme.openai.azure.com/openai/v1/embeddings"
    assert address(found, responses) == "https://acme.openai.azure.com/openai/v1/responses"
    assert credential(found) == ("api-key", KEY)


def test_azure_by_its_deployments() -> None:
    found = target("our gpt", **AZURE, api_version="2024-10-21")
    chat, embeddings = found.dialects
    base = "https://acme.openai.azure.com/openai/deployments/our%20gpt"
    assert address(found, chat) == f"{base}/chat/completions?api-version=2024-10-21"
    assert address(found, embeddings) == f"{base}/embeddings?api-version=2024-10-21"
    assert credential(found) == ("api-key", KEY)


# --- Bedrock ------------------------------------------------------------------------------------------------------


def test_bedrock_in_its_regions() -> None:
    keys = {"access_key_id": "AKIA1", "secret_access_key": KEY}
    found = target("amazon.nova-pro-v1:0", **BEDROCK, **keys)
    base = "https://bedrock-runtime.eu-central-1.amazonaws.com/model/amazon.nova-pro-v1%3A0"
    assert (address(found), address(found, stream=True)) == (f"{base}/converse", f"{base}/converse-stream")
    assert isinstance(found.access.signer, SigV4)
    assert "authorization" not in dict(found.headers(found.dialects[0]))
    china = target("m", dialect="bedrock", region="cn-north-1", **keys)
    assert china.origin == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    private = target("m", **BEDROCK, **keys, base_url="https://vpce-1.example.com")
    assert address(private) == "https://vpce-1.example.com/model/m/converse"


def test_bedrock_with_an_api_key_signs_nothing() -> None:
    found = target("m", **BEDROCK, api_key=KEY)
    assert found.access.signer is None
    assert credential(found) == ("authorization", f"Bearer {KEY}")


def test_bedrock_with_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    config = {"providers": {"aws": BEDROCK}, "routes": {"r": {"targets": ["aws/m"]}}}
    with pytest.raises(BadInput, match=r"^providers\.aws\.access_key_id: \$\{env:AWS_ACCESS_KEY_ID\} is not set"):
        Targets(Config.model_validate(config), PriceList({}, {}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "st-canary")
    [found] = Targets(Config.model_validate(config), PriceList({}, {})).find("r").targets
    assert found.redact(f"{KEY} AKIA1 st-canary") == "[redacted] [redacted] [redacted]"
    # A key of its own has its own token, or none.
    own = target("m", **BEDROCK, access_key_id="AKIA2", secret_access_key="other")
    assert own.redact("st-canary") == "st-canary"


# --- Vertex -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "origin"),
    [
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_gemini_on_vertex(location: str, origin: str) -> None:
    found = target("gemini-2.5-flash", **{**VERTEX, "location": location})
    base = f"{origin}/v1/projects/acme-prod/locations/{location}/publishers/google/models/gemini-2.5-flash"
    assert address(found) == f"{base}:generateContent"
    assert address(found, stream=True) == f"{base}:streamGenerateContent?alt=sse"
    assert credential(found) == ("authorization", f"Bearer {KEY}")


def test_claude_on_vertex() -> None:
    found = target("claude-sonnet-4-5@20250929", **VERTEX)
    [wire] = found.dialects
    assert wire.name == "anthropic"
    base = "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme-prod/locations/europe-west4"
    model = f"{base}/publishers/anthropic/models/claude-sonnet-4-5@20250929"
    assert (address(found), address(found, stream=True)) == (f"{model}:rawPredict", f"{model}:streamRawPredict")
    assert credential(found) == ("authorization", f"Bearer {KEY}")
    assert found.access.host is not None
    body = json.loads(found.access.host.body(wire, b'{"model":"m","max_tokens":9,"stream":true}'))
    assert body == {"anthropic_version": "vertex-2023-10-16", "max_tokens": 9, "stream": True}


def test_vertex_with_an_api_key_needs_no_project() -> None:
    found = target("gemini-2.5-flash", dialect="vertex", api_key=KEY)
    assert address(found).startswith("https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-2.5-flash:")
    assert credential(found) == ("x-goog-api-key", KEY)


def test_vertex_with_a_service_account(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(key_file())
    found = target("m", dialect="vertex", project="p-1", service_account=f"${{file:{tmp_path}/key.json}}")
    assert found.access.signer is not None
    assert "authorization" not in dict(found.headers(found.dialects[0]))
    with pytest.raises(Exception, match="its credential is missing on the server"):
        target("m", dialect="vertex", project="p-1", service_account="${file:/no/such/key.json}")


# --- what holds for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "provider", "dollars"),
    [
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", {**BEDROCK, "api_key": KEY}, 3_300),
        ("amazon.nova-pro-v1:0", {**BEDROCK, "api_key": KEY, "base_url": "https://vpce-1.example.com"}, 800),
        ("gpt-4.1", AZURE, 2_000),
        ("gemini-2.5-flash", VERTEX, 300),
    ],
)
def test_the_catalogue_knows_their_prices(model: str, provider: dict[str, Any], dollars: int) -> None:
    """Nano-dollars of an input token, whatever the provider is called and where."""
    rates = target(model, **provider).rates
    assert rates is not None
    assert rates.input == dollars * 1_000


@pytest.mark.parametrize("provider", [AZURE, {**BEDROCK, "api_key": KEY}, VERTEX])
def test_nothing_that_is_secret_is_shown(provider: dict[str, Any]) -> None:
    found = target("m", **provider)
    assert KEY not in repr(found)
    assert found.redact(f"bad key {KEY}") == "bad key [redacted]"
    assert KEY not in repr(Config.model_validate({"providers": {"cloud": provider}}))


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        ("dialect: azure", "providers.x.base_url: is missing"),
        ("dialect: bedrock", "providers.x.region: is missing"),
        ("{dialect: bedrock, region: EU West}", "providers.x.region: "),
        ("{dialect: bedrock, region: eu-west-1, access_key_id: a}", "providers.x.access_key_id: and"),
        ("{dialect: bedrock, region: eu-west-1, secret_access_key: a}", "providers.x.access_key_id: and secret"),
        ("{dialect: bedrock, region: eu-west-1, session_token: a}", "providers.x.session_token: needs"),
        (
            "{dialect: bedrock, region: eu-west-1, api_key: a, access_key_id: b, secret_access_key: c}",
            "providers.x.api_key: is instead of an access key",
        ),
        ("dialect: vertex", "providers.x.project: is missing"),
        ("{dialect: vertex, project: p, location: evil.example/x}", "providers.x.location: "),
        ("{dialect: vertex, project: ../p}", "providers.x.project: "),
        ("{dialect: vertex, project: p, api_key: a, access_token: b}", "providers.x.access_token: is"),
        ("{dialect: openai, region: eu-west-1}", "providers.x.region: belongs to dialect: bedrock"),
        (
            "{dialect: bedrock, region: eu-west-1, api_version: v1}",
            "providers.x.api_version: belongs to dialect: azure",
        ),
        ("{dialect: azure, base_url: 'https://a', api_version: 'a&b'}", "providers.x.api_version: "),
        ("{dialect: azure, base_url: 'https://a', project: p}", "providers.x.project: belongs to dialect: vertex"),
    ],
)
def test_what_a_cloud_lacks_is_told_with_its_place(provider: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "tidegate.yaml"
    inside = provider if provider.startswith("{") else f"{{{provider}}}"
    file.write_text(f"providers:\n  x: {inside}\n")
    with pytest.raises(InvalidFile) as caught:
        check(read(file))
    assert f"tidegate.yaml:2: {problem}" in str(caught.value)


# --- the guide ----------------------------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "providers.md"
EXAMPLES = [block.text for block in parse(GUIDE.read_text("utf-8")).blocks if block.language == "yaml"]


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.splitlines()[2].strip())
def test_every_example_of_the_guide_connects(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vertex.json").write_text(key_file())
    for name in (*re.findall(r"\$\{env:(\w+)\}", text), "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    file = tmp_path / "tidegate.yaml"
    file.write_text(text.replace("/run/secrets", str(tmp_path)))
    config = check(read(file))
    targets = Targets(config, PriceList(config.prices, {}))
    for provider in config.providers:
        assert targets.find(f"{provider}/m").targets


def test_the_guide_has_an_example_of_every_dialect() -> None:
    said = {provider.dialect for text in EXAMPLES for provider in validated(text).providers.values()}
    assert set(get_args(Provider.model_fields["dialect"].annotation)) == said


def validated(text: str) -> Config:
    return validate(parse_yaml(text, "tidegate.yaml"), Config)
