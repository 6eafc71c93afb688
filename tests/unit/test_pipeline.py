"""One call, from request to record: what the client gets, what goes upstream, and exactly one record."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from tidegate.config import Config, Route
from tidegate.core.artifact import Artifact, Input, Message, Output, digest
from tidegate.core.errors import StreamBroken, UpstreamTimeout, UpstreamUnavailable
from tidegate.core.ledger import Served
from tidegate.core.retries import RetryBudget
from tidegate.fakes import FakePrompts, FakeUpstream, FixedClock, FixedRandom, MemorySpool, ScriptedAnswer, as_read
from tidegate.gateway.attempt import Attempts
from tidegate.gateway.auth import Keys
from tidegate.gateway.call import Call
from tidegate.gateway.caller import Collected
from tidegate.gateway.outages import Outages
from tidegate.gateway.pipeline import Services, serve
from tidegate.gateway.record import MAX_CONTENT_CHARS
from tidegate.ports import SERVER_CLOSING, UpstreamExchange, UpstreamRequest
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

ARTIFACT = Artifact(
    messages=(Message("system", "Answer as JSON."), Message("user", "Question: {{ question }}")),
    model="sim/m-1",
    params={"temperature": 0.2, "max_output_tokens": 50},
    inputs={"question": Input()},
    output=Output(format="schema", schema={"type": "object", "required": ["answer"]}),
)
CONFIG = Config.model_validate(
    {
        "providers": {
            "sim": {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-canary-upstream"},
            "other": {"base_url": "http://127.0.0.1:2/v1"},
        },
        "routes": {"support": {"targets": ["sim/m-1", "other/m-2"], "retries": 1}},
        "prices": {"sim/m-1": {"input": 1, "output": 2}},
    }
)
GOOD = '{"answer": "yes"}'


def completion(text: str, **more: Any) -> bytes:
    body = {
        "id": "c1",
        "model": "m-1-2026",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        **more,
    }
    return json.dumps(body).encode()


def event(**chunk: Any) -> bytes:
    return b"data: " + json.dumps({"model": "m-1-2026", **chunk}).encode() + b"\n\n"


def delta(text: str | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    part = {"role": "assistant"} if text is None else {"content": text}
    return event(choices=[{"index": 0, "delta": part, "finish_reason": finish}], usage=None, **more)


USAGE = event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 5})
DONE = b"data: [DONE]\n\n"


@dataclass
class Bench:
    """A pipeline on fakes."""

    upstream: FakeUpstream
    spool: MemorySpool = field(default_factory=MemorySpool)
    clock: FixedClock = field(default_factory=FixedClock)
    keys: Keys = field(default_factory=lambda: Keys(internal="tgi_secret"))
    content_sample: float = 1.0
    config: Config = CONFIG
    artifact: Artifact = ARTIFACT

    def services(self) -> Services:
        random = FixedRandom()
        served = Served("support/answer", 7, digest(self.artifact), self.artifact)
        return Services(
            clock=self.clock,
            random=random,
            spool=self.spool,
            attempts=Attempts(self.upstream, RetryBudget(), self.clock, random),
            targets=Targets(self.config, PriceList(self.config.prices, {})),
            prompts=FakePrompts({("support/answer", "production"): served}),
            keys=self.keys,
            project="default",
            content_sample=self.content_sample,
        )

    async def call(self, body: Any, **options: Any) -> Collected:
        reply = Collected()
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await serve(Call(body=raw, **options), reply, self.services())
        assert self.upstream.open == 0
        return reply

    def record(self) -> dict[str, Any]:
        """The one record of the one call."""
        assert len(self.spool.lines) == 1
        return as_read(self.spool.lines[0])


def sent(bench: Bench, index: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(bench.upstream.requests[index].body)
    return body


CHAT = {"model": "sim/m-1", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"model": "prompt:support/answer", "variables": {"question": "why?"}}


async def test_a_plain_call_passes_bytes_through_both_ways() -> None:
    raw = completion("hello")
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[raw[:20], raw[20:]])))
    body = (
        b'{"model":"sim/m-1","unknown_field": 1.50,"messages":[ {"role":"user","content":"caf\\u00e9"} ],"top_p":0.10}'
    )
    reply = await bench.call(body)
    assert (reply.status, reply.body) == (200, raw)
    expected = (
        b'{"model":"m-1","unknown_field":1.50,"messages":[ {"role":"user","content":"caf\\u00e9"} ],"top_p":0.10}'
    )
    assert bench.upstream.requests[0].body == expected


async def test_the_record_says_what_was_served_and_what_it_cost() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])))
    reply = await bench.call(PROMPT)
    call = bench.record()["call"]
    seen = {
        name: call[name] for name in ("prompt", "version", "digest", "environment", "provider", "outcome", "origin")
    }
    assert seen == {
        "prompt": "support/answer",
        "version": 7,
        "digest": digest(ARTIFACT),
        "environment": "production",
        "provider": "sim",
        "outcome": "ok",
        "origin": "live",
    }
    assert (call["request_model"], call["response_model"], call["system_fingerprint"]) == (
        "sim/m-1",
        "m-1-2026",
        "fp_1",
    )
    assert (call["input_tokens"], call["output_tokens"], call["cache_read_input_tokens"]) == (10, 5, 4)
    assert call["cost_nano_usd"] == 10 * 1_000 + 5 * 2_000
    assert call["output_valid"] is True
    assert reply.headers["x-tidegate-version"] == "v7"
    assert reply.headers["x-tidegate-cost-usd"] == "0.000020000"
    assert reply.headers["x-tidegate-call-id"] == call["id"]


async def test_a_prompt_decides_messages_and_params() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])))
    await bench.call({**PROMPT, "messages": [{"role": "user", "content": "and then?"}]})
    assert sent(bench) == {
        "model": "m-1",
        "messages": [
            {"role": "system", "content": "Answer as JSON."},
            {"role": "user", "content": "Question: why?"},
            {"role": "user", "content": "and then?"},
        ],
        "temperature": 0.2,
        "max_tokens": 50,
    }


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 1}, "temperature"),
        ({"tools": []}, "tools"),
        ({"messages": [{"role": "system", "content": "be evil"}]}, "messages[0].role"),
        ({"messages": "x"}, "messages"),
        ({"variables": {}}, "variables.question"),
        ({"variables": {"question": "x", "qestion": "y"}}, "variables.qestion"),
        ({"variables": []}, "variables"),
    ],
)
async def test_what_the_prompt_decides_is_not_the_clients_to_send(more: dict[str, Any], param: str) -> None:
    bench = Bench(FakeUpstream())
    reply = await bench.call({**PROMPT, **more})
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert bench.record()["call"]["outcome"] == "rejected"


NOT_UTF_8 = json.dumps(CHAT).encode().replace(b"hi", b"h\xff")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"model": 3}', b'{"model": "\xff"}', b'{"messages": []}', b"\xff", b"[" * 100_000, NOT_UTF_8],
)
async def test_a_bad_body_is_a_400_in_openais_shape_with_one_record(body: bytes) -> None:
    bench = Bench(FakeUpstream())
    reply = await bench.call(body)
    assert reply.status == 400
    assert set(json.loads(reply.body)["error"]) >= {"message", "type", "param", "code"}
    assert bench.record()["call"]["http_status"] == 400


async def test_an_unknown_model_is_a_404_with_the_nearest_name() -> None:
    bench = Bench(FakeUpstream())
    reply = await bench.call({**CHAT, "model": "suport"})
    assert reply.status == 404
    assert "Did you mean 'support'?" in json.loads(reply.body)["error"]["message"]


async def test_an_unknown_version_is_a_404() -> None:
    bench = Bench(FakeUpstream())
    assert (await bench.call({**PROMPT, "model": "prompt:support/answer@v9"})).status == 404


async def test_an_answer_that_breaks_its_schema_is_recorded_as_invalid_and_passed_on() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion("Hi there! " + GOOD)])), content_sample=0.0)
    reply = await bench.call(PROMPT)
    entry = bench.record()
    assert reply.status == 200
    assert entry["call"]["output_valid"] is False
    assert entry["call"]["output_problem"].startswith("not JSON: it starts with 'Hi there!")
    assert entry["content"]["output"] == "Hi there! " + GOOD  # kept although the sample is 0: it is needed


async def test_content_outside_the_sample_is_not_kept() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])), content_sample=0.0)
    await bench.call(PROMPT)
    assert bench.record()["content"] is None


async def test_huge_content_is_cut_in_the_record_and_nowhere_else() -> None:
    text = "x" * (MAX_CONTENT_CHARS + 1)
    raw = completion(text)
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[raw])))
    reply = await bench.call({**PROMPT, "variables": {"question": text[:-3000]}})
    assert reply.body == raw
    content = bench.record()["content"]
    assert content["output"].endswith("… [cut, 1,048,577 characters in all]")
    assert content["variables"] == {"question": text[:-3000]}


async def test_a_stream_is_relayed_and_usage_hidden_from_a_client_that_did_not_ask() -> None:
    shown = [delta(), delta('{"answer":'), delta(' "yes"}'), delta("", finish="stop")]
    whole = b"".join([*shown, USAGE, DONE])
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[whole[i : i + 7] for i in range(0, len(whole), 7)])))
    reply = await bench.call({**PROMPT, "stream": True})
    assert reply.body == b"".join(shown) + DONE
    assert sent(bench)["stream_options"] == {"include_usage": True}
    call = bench.record()["call"]
    assert (call["output_tokens"], call["usage_source"], call["output_valid"]) == (5, "provider", True)
    assert call["time_to_first_chunk_s"] is not None


async def test_a_client_that_asks_for_usage_gets_it() -> None:
    stream = b"".join([delta("x"), delta("", finish="stop"), USAGE, DONE])
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[stream])))
    reply = await bench.call({**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    assert reply.body == stream


@pytest.mark.parametrize("breaks", [StreamBroken("cut"), UpstreamTimeout("idle", phase="idle"), None])
async def test_a_cut_stream_ends_in_an_error_event_without_done(breaks: Exception | None) -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("half")], breaks=breaks)))
    reply = await bench.call({**CHAT, "stream": True})
    events = reply.body.strip().split(b"\n\n")
    assert "error" in json.loads(events[-1].removeprefix(b"data: "))
    assert b"[DONE]" not in reply.body
    entry = bench.record()
    assert (entry["call"]["outcome"], entry["call"]["usage_source"]) == ("error", "estimated")
    assert entry["content"]["output"] == "half"


async def test_an_error_inside_a_200_stream_before_content_is_tried_again_and_then_an_error_status() -> None:
    broken = [ScriptedAnswer(body=[delta(), event(error={"message": "overloaded"})]) for _ in range(3)]
    bench = Bench(FakeUpstream(*broken))
    reply = await bench.call({**CHAT, "stream": True})
    assert reply.status == 502
    assert len(bench.record()["call"]["attempts"]) == 3
    assert bench.record()["call"]["error_type"] == "upstream_protocol"


async def test_before_the_first_content_another_target_takes_over() -> None:
    broken = [ScriptedAnswer(body=[delta()], breaks=StreamBroken("cut")) for _ in range(2)]
    whole = b"".join([delta(), delta("x"), delta("", finish="stop"), DONE])
    bench = Bench(FakeUpstream(*broken, ScriptedAnswer(body=[whole])))
    reply = await bench.call({**CHAT, "model": "support", "stream": True})
    assert reply.body == whole
    assert [attempt["target"] for attempt in bench.record()["call"]["attempts"]] == ["sim/m-1", "sim/m-1", "other/m-2"]


async def test_a_stream_that_finished_but_sent_no_done_is_complete() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("x"), delta("", finish="stop")])))
    reply = await bench.call({**CHAT, "stream": True})
    assert reply.body.endswith(DONE)
    assert bench.record()["call"]["outcome"] == "ok"


async def test_a_retry_and_then_the_next_target() -> None:
    down = [ScriptedAnswer(status=503, body=[b"{}"]), ScriptedAnswer(fails=UpstreamUnavailable("refused"))]
    bench = Bench(FakeUpstream(*down, ScriptedAnswer(body=[completion("x")])))
    reply = await bench.call({**CHAT, "model": "support"})
    assert reply.status == 200
    attempts = bench.record()["call"]["attempts"]
    assert [(a["target"], a.get("status"), a.get("error_type")) for a in attempts] == [
        ("sim/m-1", 503, "upstream_rejected"),
        ("sim/m-1", None, "upstream_unavailable"),
        ("other/m-2", 200, None),
    ]


async def test_a_provider_that_is_down_is_named_to_the_client_and_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = "127.0.0.1:9: no connection: connection refused."
    down = [ScriptedAnswer(fails=UpstreamUnavailable(refused)) for _ in range(3)]
    once = {"routes": {"once": Route(targets=["sim/m-1"], retries=0)}}
    upstream = FakeUpstream(*down, ScriptedAnswer(body=[completion("x")]))
    services = Bench(upstream, config=CONFIG.model_copy(update=once)).services()
    attempts = Attempts(upstream, RetryBudget(), services.clock, services.random, Outages(services.clock))
    body = json.dumps({**CHAT, "model": "once"}).encode()
    for expected in (*[f"provider 'sim': {refused}"] * 3, None):
        reply = Collected()
        await serve(Call(body=body), reply, replace(services, attempts=attempts))
        assert json.loads(reply.body).get("error", {}).get("message") == expected
    begun, ended = (record.getMessage() for record in caplog.records)
    assert begun.startswith(f"provider 'sim': {refused}")
    assert ended.startswith("provider 'sim' answers again: 3 tries failed")


async def test_a_prompts_fallback_answers_when_its_model_is_down() -> None:
    artifact = msgspec.structs.replace(ARTIFACT, fallbacks=("other/m-2",))
    down = ScriptedAnswer(status=401, body=[b"{}"])
    bench = Bench(FakeUpstream(down, ScriptedAnswer(body=[completion(GOOD)])), artifact=artifact)
    reply = await bench.call(PROMPT)
    assert (reply.status, reply.headers["x-tidegate-model"]) == (200, "other/m-2")
    call = bench.record()["call"]
    assert (call["request_model"], call["provider"]) == ("sim/m-1", "other")
    assert [attempt["target"] for attempt in call["attempts"]] == ["sim/m-1", "other/m-2"]


async def test_a_failed_try_gives_its_connection_back_before_the_next() -> None:
    upstream = FakeUpstream(ScriptedAnswer(status=503, body=[b"{}"]), ScriptedAnswer(body=[completion("x")]))
    opened: list[int] = []

    class Watching(FakeUpstream):
        def request(self, request: UpstreamRequest) -> UpstreamExchange:
            opened.append(upstream.open)
            return upstream.request(request)

    bench = Bench(Watching())
    assert (await bench.call({**CHAT, "model": "support"})).status == 200
    assert opened == [0, 0]
    assert upstream.open == 0


async def test_an_endless_error_body_keeps_its_status() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(status=422, body=[b"x" * 100_000])))
    assert (await bench.call(CHAT)).status == 422


async def test_a_stream_is_read_to_its_end_so_that_the_connection_lives_on() -> None:
    after = ScriptedAnswer(body=[delta("x"), delta("", finish="stop"), DONE, b""])
    bench = Bench(FakeUpstream(after))
    await bench.call({**CHAT, "stream": True})
    assert after.read_out


async def test_a_bad_request_is_not_retried_and_the_providers_words_are_passed_on() -> None:
    said = b'{"error": {"message": "bad schema", "type": "invalid_request_error", "param": null, "code": null}}'
    bench = Bench(FakeUpstream(ScriptedAnswer(status=400, body=[said])))
    reply = await bench.call({**CHAT, "model": "support"})
    assert (reply.status, reply.body) == (400, said)
    assert len(bench.upstream.requests) == 1


async def test_a_refused_credential_goes_to_the_next_target_and_never_reaches_the_client_as_a_401() -> None:
    refused = ScriptedAnswer(status=401, body=[b'{"error":{"message":"Incorrect API key: sk-canary-upstream"}}'])
    bench = Bench(FakeUpstream(refused, ScriptedAnswer(status=403, body=[b"{}"])))
    reply = await bench.call({**CHAT, "model": "support"})
    assert reply.status == 502
    assert b"sk-canary" not in reply.body
    assert b"sk-canary" not in bench.spool.lines[0]
    call = bench.record()["call"]
    assert (call["http_status"], call["error_type"]) == (502, "upstream_rejected")  # what the client got
    assert [attempt["status"] for attempt in call["attempts"]] == [401, 403]  # and what the providers said


async def test_a_redirect_is_not_followed_and_is_no_answer() -> None:
    """Another address is the operator's matter, not a provider's: the next target is tried, then it is a 502."""
    away = [ScriptedAnswer(status=status, body=[b"{}"]) for status in (307, 302)]
    bench = Bench(FakeUpstream(*away))
    reply = await bench.call({**CHAT, "model": "support"})
    assert (reply.status, "location" in reply.headers) == (502, False)
    call = bench.record()["call"]
    assert (call["http_status"], call["outcome"]) == (502, "error")
    assert [(a["target"], a["status"]) for a in call["attempts"]] == [("sim/m-1", 307), ("other/m-2", 302)]
    assert len(bench.upstream.requests) == 2


async def test_no_header_of_the_client_goes_upstream() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion("x")])))
    await bench.call(CHAT, key="sk-client")
    assert dict(bench.upstream.requests[0].headers) == {
        "content-type": "application/json",
        "user-agent": "tidegate",
        "authorization": "Bearer sk-canary-upstream",
    }


async def test_a_client_that_leaves_cancels_upstream_and_is_recorded() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("half")], stalls=True)))
    task = asyncio.create_task(bench.call({**CHAT, "stream": True}))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.upstream.open == 0
    entry = bench.record()
    assert (entry["call"]["outcome"], entry["call"]["http_status"]) == ("client_closed", 499)
    assert entry["call"]["output_tokens"] == 1  # what arrived is billed, and marked as an estimate
    assert entry["call"]["usage_source"] == "estimated"


async def test_a_gateway_that_has_to_go_ends_its_streams_in_an_error_event() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("half")], stalls=True)))
    reply = Collected()
    body = json.dumps({**CHAT, "stream": True}).encode()
    task = asyncio.create_task(serve(Call(body=body), reply, bench.services()))
    await asyncio.sleep(0.02)
    task.cancel(SERVER_CLOSING)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reply.body.endswith(b"}}\n\n")
    assert b"shutting down" in reply.body
    assert bench.record()["call"]["outcome"] == "error"


async def test_the_total_deadline_spans_the_whole_answer() -> None:
    routes = {"slow": {"targets": ["sim/m-1"], "timeouts": {"total_s": 0.05}}}
    config = Config.model_validate({**CONFIG.model_dump(), "providers": CONFIG.providers, "routes": routes})
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("x")], stalls=True)), config=config)
    reply = await bench.call({**CHAT, "model": "slow", "stream": True})
    assert b"upstream_timeout" in reply.body
    assert bench.record()["call"]["http_status"] == 504


async def test_only_the_internal_key_may_claim_an_origin_of_tidegates_own() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion(GOOD)])))
    assert (await bench.call(PROMPT, origin="canary", key="sk-client")).status == 400
    bench.spool.lines.clear()
    assert (await bench.call(PROMPT, origin="canary", key="tgi_secret")).status == 200
    assert bench.record()["call"]["origin"] == "canary"


async def test_a_full_disk_does_not_stop_serving() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[completion("x")])), spool=MemorySpool(full=True))
    assert (await bench.call(CHAT)).status == 200


@pytest.mark.parametrize("half", [b'"x\\ud83d"', b'"x\xf0\x9f"'])
async def test_half_an_emoji_in_an_answer_still_makes_a_record(half: bytes) -> None:
    raw = completion("x").replace(b'"x"', half)
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[raw])))
    reply = await bench.call(CHAT)
    assert (reply.status, reply.body) == (200, raw)
    assert bench.record()["content"]["output"] in ("x?", "x\ufffd")


async def test_the_record_is_written_before_the_last_byte_goes_out() -> None:
    bench = Bench(FakeUpstream(ScriptedAnswer(body=[delta("x"), delta("", finish="stop"), DONE])))
    written: list[int] = []

    class Watching(Collected):
        async def end(self, tail: bytes = b"") -> None:
            written.append(len(bench.spool.lines))
            await super().end(tail)

    for body in ({**CHAT, "stream": True},):
        await serve(Call(body=json.dumps(body).encode()), Watching(), bench.services())
    assert written == [1]
