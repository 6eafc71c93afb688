"""OpenAI's SDK as a client of embeddings; it asks for base64 when it is not told otherwise."""

from __future__ import annotations

import base64
import json
from array import array
from math import hypot
from typing import Any

import httpx
import openai
import pytest

from tests.contract.clients.gateway import Gateway, gateway
from tests.contract.clients.test_openai import client_of
from tidegate.fakes import as_read
from tidegate.simulate import rules
from tidegate.simulate.embed import DIMENSIONS, EMBED

TEXT = "Shoes can be returned for 30 days."


def closeness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def sent(here: Gateway) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(here.provider.requests[-1].body)
    return body


async def test_f2_the_sdks_default_of_base64_comes_through() -> None:
    async with client_of() as (client, here):
        plain = await client.embeddings.create(model="embed", input=TEXT)
        floats = await client.embeddings.create(model="embed", input=TEXT, encoding_format="float")
        first = json.loads(here.provider.requests[0].body)
    assert first["encoding_format"] == "base64"
    vector = plain.data[0].embedding
    assert len(vector) == DIMENSIONS
    assert hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert vector == pytest.approx(floats.data[0].embedding)
    assert (plain.model, plain.usage.prompt_tokens) == (EMBED, len(rules.tokenize(TEXT)))


async def test_the_answer_is_the_providers_byte_for_byte() -> None:
    body = {"model": f"sim/{EMBED}", "input": [TEXT, "Hats"], "encoding_format": "base64", "user": "u-1", "extra": 1.0}
    async with gateway() as here, httpx.AsyncClient() as http:
        through = await http.post(f"{here.origin}/v1/embeddings", json=body)
        assert sent(here) == {**body, "model": EMBED}
        key = here.provider.requests[-1].headers["authorization"]
        direct = await http.post(
            f"{here.provider.url}/embeddings", json={**body, "model": EMBED}, headers={"authorization": key}
        )
    assert through.content == direct.content
    raw = base64.b64decode(through.json()["data"][1]["embedding"])
    assert len(array("f", raw)) == DIMENSIONS


@pytest.mark.parametrize(
    ("given", "vectors", "tokens"),
    [("hats", 1, 1), (["hats", "shoes"], 2, 2), ([1, 2, 3], 1, 3), ([[1, 2], [3, 4, 5]], 2, 5)],
)
async def test_a_text_texts_tokens_and_lists_of_tokens(given: Any, vectors: int, tokens: int) -> None:
    async with client_of() as (client, here):
        answer = await client.embeddings.create(model="embed", input=given, dimensions=8, user="u-1")
        assert (sent(here)["dimensions"], sent(here)["user"]) == (8, "u-1")
    assert [(one.index, len(one.embedding)) for one in answer.data] == [(index, 8) for index in range(vectors)]
    assert here.record()["input_tokens"] == tokens


async def test_the_record_says_embeddings_their_tokens_and_their_cost() -> None:
    async with client_of() as (client, here):
        answer = await client.embeddings.with_raw_response.create(model="embed", input=TEXT)
    record = here.record()
    tokens = len(rules.tokenize(TEXT))
    assert (record["operation"], record["dialect"], record["outcome"]) == ("embeddings", "openai_embeddings", "ok")
    assert (record["input_tokens"], record["output_tokens"], record["usage_source"]) == (tokens, 0, "provider")
    assert record["cost_nano_usd"] == tokens * 20
    assert answer.headers["x-tidegate-cost-usd"] == f"{tokens * 20 / 1e9:.9f}"
    content = as_read(here.spool.lines[0])["content"]
    assert (json.loads(content["input"]), content["output"]) == (TEXT, "")


async def test_texts_that_share_words_lie_close() -> None:
    texts = ["how long can shoes be returned", "shoes can be returned for 30 days", "we open at nine"]
    async with client_of() as (client, _):
        answer = await client.embeddings.create(model="embed", input=texts)
    asked, near, far = (one.embedding for one in answer.data)
    assert closeness(asked, near) > closeness(asked, far) + 0.3


@pytest.mark.parametrize(
    ("body", "error", "param"),
    [
        ({"model": "embed"}, openai.BadRequestError, "input"),
        ({"model": "embed", "input": 7}, openai.BadRequestError, "input"),
        ({"input": "hats"}, openai.BadRequestError, "model"),
        ({"model": "embed", "input": "hats", "stream": True}, openai.BadRequestError, "stream"),
        ({"model": "embed", "input": "hats", "variables": {}}, openai.BadRequestError, "variables"),
        ({"model": "prompt:support/answer", "input": "hats"}, openai.BadRequestError, "model"),
        ({"model": "embet", "input": "hats"}, openai.NotFoundError, "model"),
        ({"model": "embed", "input": [["a"]]}, openai.BadRequestError, "input[0]"),
        ({"model": "embed", "input": "hats", "dimensions": 10_000}, openai.BadRequestError, "dimensions"),
        ({"model": "support", "input": "hats"}, openai.NotFoundError, None),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_bad_requests_are_the_sdks_errors(body: Any, error: type[openai.APIStatusError], param: str) -> None:
    async with client_of() as (client, here):
        with pytest.raises(error) as raised:
            await client.post("/embeddings", body=body, cast_to=object)
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["param"] == param
    assert len(here.spool.lines) == 1


async def test_a_failing_provider_is_the_sdks_server_error_and_one_record() -> None:
    async with client_of("status=500") as (client, here):
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model="embed", input=TEXT)
    assert (here.record()["operation"], here.record()["outcome"]) == ("embeddings", "error")


async def test_an_answer_without_vectors_is_no_answer() -> None:
    async with client_of("garbage=0") as (client, here):
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model="embed", input=TEXT)
    assert here.record()["error_type"] == "upstream_protocol"
