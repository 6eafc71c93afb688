"""Embeddings in the pipeline: which targets take them, and what is recorded when the provider says little."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_pipeline import Bench
from tidegate.config import Config
from tidegate.core.errors import InvalidRequest, UpstreamProtocol
from tidegate.dialects.openai_embeddings import DIALECT
from tidegate.fakes import FakeUpstream, ScriptedAnswer

CONFIG = Config.model_validate(
    {
        "providers": {
            "claude": {"dialect": "anthropic", "base_url": "http://127.0.0.1:1"},
            "sim": {"base_url": "http://127.0.0.1:2/v1"},
        },
        "routes": {"mixed": {"targets": ["claude/m-1", "sim/embed"]}, "talk": {"targets": ["claude/m-1"]}},
        "prices": {"sim/embed": {"input": 1, "output": 0}},
    }
)
VECTORS = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"model":"embed-1"}'


async def embed(bench: Bench, model: str, **more: Any) -> Any:
    return await bench.call({"model": model, "input": "x" * 40, **more}, dialect=DIALECT)


async def test_a_target_that_only_talks_is_passed_over() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[VECTORS])), config=CONFIG)
    reply = await embed(bench, "mixed")
    assert (reply.status, reply.body) == (200, VECTORS)
    assert [request.path for request in bench.upstream.requests] == ["/v1/embeddings"]
    row = bench.record()["call"]
    assert (row["provider"], [attempt["target"] for attempt in row["attempts"]]) == ("sim", ["sim/embed"])


async def test_a_route_where_nobody_embeds_is_refused_before_it_costs_anything() -> None:
    bench = Bench(FakeUpstream(), config=CONFIG)
    reply = await embed(bench, "talk")
    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"] == "model"
    assert (bench.record()["call"]["outcome"], bench.upstream.requests) == ("rejected", [])


async def test_g1_vectors_without_usage_are_estimated_and_marked() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[VECTORS])), config=CONFIG)
    await embed(bench, "sim/embed")
    row = bench.record()["call"]
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (11, 0, "estimated")
    assert row["cost_nano_usd"] == 11 * 1_000
    assert (row["response_model"], row["finish_reason"], row["streamed"]) == ("embed-1", None, False)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"error":{"message":"no"}}', b'{"data":{}}', b"\xff"])
def test_what_holds_no_vectors_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.read_answer(body)


def test_every_value_keeps_its_bytes() -> None:
    body = b'{"model":"r","input":[[1, 2],[ 3 ]],"dimensions":8.0,"later":{"a" : 1e3}}'
    sent = DIALECT.same_body(DIALECT.parse_request(body), model="embed-1", native=True)
    assert sent == body.replace(b'"r"', b'"embed-1"')


def test_as_many_tokens_as_openai_takes_come_through_and_not_any_number() -> None:
    assert DIALECT.parse_request(json.dumps({"model": "m", "input": [7] * 300_000}).encode()).model == "m"
    with pytest.raises(InvalidRequest, match="JSON values"):
        DIALECT.parse_request(json.dumps({"model": "m", "input": [7] * 500_000}).encode())
