"""The simulated provider, asked by the real OpenAI SDK and by plain HTTP, over loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from tidegate.core.errors import BadInput
from tidegate.simulate import rules
from tidegate.simulate.agent import AGENT
from tidegate.simulate.server import MODELS, Latency, Simulator

QUESTION = "Context: Shoes can be returned for 30 days. Hats can not.\n\nQuestion: How long can shoes be returned?"
MESSAGES: Any = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": QUESTION}]
ANSWER = {"answer": "Shoes can be returned for 30 days.", "needs_human": False}
CHAT: dict[str, Any] = {"model": rules.SUPPORT, "messages": MESSAGES}


@asynccontextmanager
async def sdk(simulator: Simulator, key: str = "sk-test") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key=key, max_retries=0, timeout=5) as client:
        yield client


async def post(simulator: Simulator, body: Any = CHAT, fault: str = "") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(timeout=5) as client:
        headers = {"x-simulate": fault} if fault else {}
        return await client.post(f"{simulator.url}/chat/completions", content=content, headers=headers)


def events(body: bytes) -> list[Any]:
    """The data of every event; `[DONE]` as it is."""
    assert body.endswith(b"\n\n")
    lines = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    return [text if (text := line[6:]) == "[DONE]" else json.loads(text) for line in lines]


async def test_the_sdk_gets_an_answer_with_usage() -> None:
    async with Simulator() as simulator, sdk(simulator) as client:
        answer = await client.chat.completions.create(model=rules.SUPPORT, messages=MESSAGES, tool_choice="none")
        text = answer.choices[0].message.content
        assert text is not None
        assert json.loads(text) == ANSWER
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(rules.tokenize(text))
        sent = [rules.Message(message["role"], message["content"]) for message in MESSAGES]
        assert answer.usage.prompt_tokens == rules.input_tokens(sent)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.model == rules.SUPPORT
        assert answer.system_fingerprint


async def test_the_sdk_gets_the_same_answer_as_a_stream_with_the_usage_it_asked_for() -> None:
    async with Simulator() as simulator, sdk(simulator) as client:
        whole = await client.chat.completions.create(model=rules.SUPPORT, messages=MESSAGES)
        stream = await client.chat.completions.create(
            model=rules.SUPPORT, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    *content, finish, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in content) == whole.choices[0].message.content
    assert content[0].choices[0].delta.role == "assistant"
    assert finish.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert whole.usage is not None
    assert len(content) - 1 == whole.usage.completion_tokens  # one event per token it charges


async def test_usage_is_null_before_the_end_and_absent_when_not_asked_for() -> None:
    async with Simulator() as simulator:
        asked = await post(simulator, {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
        silent = await post(simulator, {**CHAT, "stream": True})
    *chunks, last, done = events(asked.content)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["usage"]["completion_tokens"] > 0
    assert all("usage" not in chunk for chunk in events(silent.content)[:-1])
    assert all(chunk["choices"] for chunk in events(silent.content)[:-1])


async def test_a_bound_on_output_ends_it_with_length() -> None:
    async with Simulator() as simulator, sdk(simulator) as client:
        answer = await client.chat.completions.create(model=rules.SUPPORT, messages=MESSAGES, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


async def test_the_same_seed_and_request_give_the_same_bytes() -> None:
    async with Simulator(seed=1) as one, Simulator(seed=1) as same, Simulator(seed=2) as other:
        answers = [(await post(simulator)).content for simulator in (one, one, same, other)]
    assert answers[0] == answers[1] == answers[2] != answers[3]


async def test_messages_may_be_parts() -> None:
    parts = [{"type": "text", "text": QUESTION[:30]}, {"type": "text", "text": QUESTION[30:]}]
    async with Simulator() as simulator:
        answer = await post(simulator, {**CHAT, "messages": [{"role": "user", "content": parts}]})
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == ANSWER


async def test_the_tools_model_calls_the_first_tool_whole_and_as_a_stream() -> None:
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("weather", "time")]
    async with Simulator() as simulator, sdk(simulator) as client:
        whole = await client.chat.completions.create(model=rules.TOOLS, messages=MESSAGES, tools=tools)
        async with client.chat.completions.stream(model=rules.TOOLS, messages=MESSAGES, tools=tools) as stream:
            streamed = await stream.get_final_completion()
    for answer in (whole, streamed):
        choice = answer.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert call.id.startswith("call_")
        assert (call.function.name, call.function.arguments) == ("weather", rules.TOOL_ARGUMENTS)


async def test_the_agent_model_makes_several_calls_in_one_answer_whole_and_as_a_stream() -> None:
    order = {"type": "object", "properties": {"id": {"pattern": "A[0-9]"}}, "required": ["id"]}
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": order}}]
    messages: Any = [{"role": "system", "content": "Call look."}, {"role": "user", "content": "A1 and A2?"}]
    async with Simulator() as simulator, sdk(simulator) as client:
        whole = await client.chat.completions.create(model=AGENT, messages=messages, tools=tools)
        async with client.chat.completions.stream(model=AGENT, messages=messages, tools=tools) as stream:
            streamed = await stream.get_final_completion()
        asked = whole.choices[0].message
        results: Any = [
            {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"n": number})}
            for number, call in enumerate(asked.tool_calls or [], start=1)
        ]
        told: Any = [*messages, asked.model_dump(exclude_none=True), *results]
        done = await client.chat.completions.create(model=AGENT, messages=told, tools=tools)
    for answer in (whole, streamed):
        calls = [call for call in answer.choices[0].message.tool_calls or [] if call.type == "function"]
        assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
            ("look", {"id": "A1"}),
            ("look", {"id": "A2"}),
        ]
        assert len({call.id for call in calls}) == 2
        assert answer.choices[0].finish_reason == "tool_calls"
    assert done.choices[0].message.content == "What I found: n is 1; n is 2."


async def test_models_are_listed() -> None:
    async with Simulator() as simulator, sdk(simulator) as client:
        assert [model.id async for model in client.models.list()] == list(MODELS)
        async with httpx.AsyncClient() as plain:
            assert (await plain.get(f"{simulator.origin}/livez")).json() == {"status": "ok"}


async def test_the_fixed_model_answers_about_800_constant_bytes() -> None:
    async with Simulator(latency=Latency(first_byte_s=60)) as simulator:
        bodies = {
            (await post(simulator, {**CHAT, "model": "fixed", "user": str(number)})).content for number in range(3)
        }
        stream = await post(simulator, {**CHAT, "model": "fixed", "stream": True})
    assert 750 < len(bodies.pop()) < 850
    assert not bodies
    deltas = [event["choices"][0]["delta"].get("content", "") for event in events(stream.content)[:-1]]
    assert "".join(deltas) == rules.FIXED_ANSWER


# --- wrong requests ---------------------------------------------------------------------------------------------------


async def test_the_sdk_raises_its_own_errors() -> None:
    async with Simulator(api_key="sk-right") as simulator:
        async with sdk(simulator, "sk-wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        async with sdk(simulator, "sk-right") as client:
            with pytest.raises(openai.NotFoundError) as unknown:
                await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
            assert unknown.value.code == "model_not_found"
            with pytest.raises(openai.BadRequestError) as invalid:
                await client.chat.completions.create(model=rules.SUPPORT, messages=[])
            assert invalid.value.param == "messages"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"", None),
        (b"[]", None),
        (b'"\xff"', None),
        ({"messages": MESSAGES}, "model"),
        ({"model": rules.SUPPORT}, "messages"),
        ({**CHAT, "messages": "hello"}, "messages"),
        ({**CHAT, "messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({**CHAT, "max_tokens": 0}, "max_tokens"),
        ({**CHAT, "stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
async def test_an_invalid_body_is_a_400_that_names_the_field(body: Any, param: str | None) -> None:
    async with Simulator() as simulator:
        answer = await post(simulator, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"]


async def test_unknown_paths_and_methods_are_told_apart() -> None:
    async with Simulator() as simulator, httpx.AsyncClient() as client:
        assert (await client.get(f"{simulator.url}/nothing")).status_code == 404
        assert (await client.get(f"{simulator.url}/chat/completions")).status_code == 405


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_an_error_status_carries_its_retry_after() -> None:
    async with Simulator() as simulator:
        answer = await post(simulator, fault="status=429; retry-after=2")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert (await post(simulator, fault="status=503")).json()["error"]["type"] == "server_error"
        assert (await post(simulator, fault="statsu=503")).status_code == 400


async def test_a_script_applies_to_requests_that_name_no_fault() -> None:
    async with Simulator(script=["status=500; times=2"]) as simulator:
        assert [(await post(simulator)).status_code for _ in range(3)] == [500, 500, 200]
        simulator.set_script(["status=503"])
        assert (await post(simulator)).status_code == 503
        with pytest.raises(BadInput):
            simulator.set_script(["nonsense"])


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_is_seen_as_one(how: str, stream: bool) -> None:
    async with Simulator() as simulator:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await post(simulator, {**CHAT, "stream": stream}, fault=f"cut={3 if stream else 0}; how={how}")


async def test_the_events_before_a_cut_arrive() -> None:
    async with Simulator() as simulator, sdk(simulator) as client:
        for how in ("fin", "rst"):
            stream = await client.chat.completions.create(
                model=rules.SUPPORT, messages=MESSAGES, stream=True, extra_headers={"x-simulate": f"cut=3; how={how}"}
            )
            for _ in range(3):
                assert (await anext(stream)).choices
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, openai.APIError)):
                await anext(stream)


async def test_a_stall_lasts_until_the_client_leaves() -> None:
    async with Simulator() as simulator, httpx.AsyncClient(timeout=0.2) as client:
        request = {"json": {**CHAT, "stream": True}, "headers": {"x-simulate": "stall=3"}}
        async with client.stream("POST", f"{simulator.url}/chat/completions", **request) as answer:  # type: ignore[arg-type]
            with pytest.raises(httpx.ReadTimeout):
                await answer.aread()
        async with asyncio.timeout(2):
            while simulator.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert simulator.cancelled == 1


async def test_a_stream_that_is_behind_its_time_still_sees_its_client_leave() -> None:
    """A busy machine: the time of the whole answer is over after its first event."""
    text = f"Context: {' '.join(['shoes'] * 500)}.\n\nQuestion: Shoes?"
    asked = {**CHAT, "stream": True, "messages": [{"role": "user", "content": text}]}
    async with Simulator(latency=Latency(tokens_per_s=2_000, sigma=0)) as simulator, httpx.AsyncClient() as client:
        async with client.stream("POST", f"{simulator.url}/chat/completions", json=asked) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            time.sleep(0.5)  # noqa: ASYNC251
            await anext(pieces)
        async with asyncio.timeout(2):
            while simulator.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert simulator.cancelled == 1


async def test_garbage_errors_and_non_http_come_as_scripted() -> None:
    async with Simulator() as simulator:
        stream = {**CHAT, "stream": True}
        with pytest.raises(UnicodeDecodeError):
            events((await post(simulator, stream, fault="garbage=2")).content)
        *content, error = events((await post(simulator, stream, fault="error=2")).content)
        assert (len(content), error["error"]["code"]) == (2, "server_error")
        whole = await post(simulator, fault="error=0")
        assert (whole.status_code, whole.json()["error"]["code"]) == (200, "server_error")
        with pytest.raises(UnicodeDecodeError):
            (await post(simulator, fault="garbage=0")).json()
        with pytest.raises(httpx.RemoteProtocolError):
            await post(simulator, fault="not-http")


async def test_delays_are_kept() -> None:
    async with Simulator() as simulator:
        began = time.monotonic()
        await post(simulator, fault="delay=0.1")
        await post(simulator, {**CHAT, "stream": True}, fault="first-byte=0.1")
        assert 0.2 <= time.monotonic() - began < 1


async def test_latency_has_a_median_and_a_seed() -> None:
    async def times(seed: int) -> list[float]:
        simulator = Simulator(seed=seed, latency=Latency(first_byte_s=0.1, tokens_per_s=100))
        return [simulator._draw_times(rules.SUPPORT)[0] for _ in range(999)]

    first = await times(1)
    assert 0.09 < sorted(first)[500] < 0.11
    assert first == await times(1) != await times(2)


async def test_a_stream_takes_its_time_token_by_token() -> None:
    async with Simulator(latency=Latency(first_byte_s=0.02, tokens_per_s=200, sigma=0.0)) as simulator:
        began = time.monotonic()
        answer = await post(simulator, {**CHAT, "stream": True})
        count = len(events(answer.content)) - 1
        assert (count - 1) / 200 <= time.monotonic() - began < 1


async def test_what_was_received_is_kept_for_tests_to_see() -> None:
    async with Simulator() as simulator:
        for number in range(1_010):
            simulator.requests.append(number)  # type: ignore[arg-type]
        assert len(simulator.requests) == 1_000
        await post(simulator, fault="status=500")
        received = simulator.requests[-1]
        assert (received.method, received.path) == ("POST", "/v1/chat/completions")
        assert received.headers["x-simulate"] == "status=500"
        assert json.loads(received.body) == CHAT


# --- as a process -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tidegate.simulate", *arguments)
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.parametrize("end", ["stdin", "SIGTERM", "SIGINT"])
async def test_the_process_says_when_it_is_ready_and_ends_when_told(end: str) -> None:
    async with process("--port", "0", "--stdin-is-lifeline") as child, asyncio.timeout(20):
        assert child.stdout is not None
        assert child.stdin is not None
        line = (await child.stdout.readline()).decode()
        assert line.startswith("simulated provider ready at http://127.0.0.1:")
        async with openai.AsyncOpenAI(base_url=line.split()[-1], api_key="any", max_retries=0) as client:
            answer = await client.chat.completions.create(model=rules.SUPPORT, messages=MESSAGES)
        assert json.loads(answer.choices[0].message.content or "") == ANSWER
        if end == "stdin":
            child.stdin.close()
        else:
            os.kill(child.pid, signal.Signals[end])
        assert await child.wait() == 0


async def test_a_taken_port_is_one_sentence() -> None:
    async with Simulator() as simulator:
        port = simulator.origin.rpartition(":")[2]
        async with process("--port", port) as child, asyncio.timeout(20):
            _, problem = await child.communicate()
        assert child.returncode == 4
        assert problem.decode() == (
            f"tidegate.simulate: 127.0.0.1:{port} is already in use. Choose another with --port.\n"
        )
