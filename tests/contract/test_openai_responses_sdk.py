"""OpenAI's own SDK as a client of the Responses dialect: what we write it reads, what it sends we understand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseReasoningItem
from pydantic import BaseModel

from tidegate.core import chat
from tidegate.core.errors import InvalidRequest, Saturated, StreamBroken, TidegateError, UnknownModel
from tidegate.core.usage import Usage
from tidegate.dialects.dialect import Incoming
from tidegate.dialects.openai_responses import DIALECT
from tidegate.gateway.edge import Edge, HttpReply, Request

USAGE = Usage(30, 12, 10, 0, 4)
WORDS: list[chat.Event] = [
    chat.Started("msg_01", "claude-opus-4-8"),
    chat.ThinkingDelta("Let me "),
    chat.ThinkingDelta("see."),
    chat.ThinkingDelta(signature="EqQBCk"),
    chat.ThinkingDelta(redacted="EmwKAh"),
    chat.TextDelta('{"city":'),
    chat.TextDelta(' "Róma"}'),
    chat.Finished("stop"),
    chat.UsageReported(USAGE),
    chat.Ended(),
]
CALLS: list[chat.Event] = [
    chat.Started("chatcmpl-1", "m"),
    chat.TextDelta("I will look."),
    chat.ToolCallStarted(0, "call_a", "Weather"),
    chat.ToolCallStarted(1, "call_b", "Weather"),
    chat.ToolCallDelta(1, '{"city":'),
    chat.ToolCallDelta(0, '{"city": "Paris"}'),
    chat.ToolCallDelta(1, ' "Rome"}'),
    chat.Finished("tool_calls"),
    chat.Ended(),
]


class Place(BaseModel):
    city: str


class Weather(BaseModel):
    """How is the weather?"""

    city: str


@dataclass
class Service:
    """A server that speaks the dialect: answers with what the test gives it, and keeps what it was asked."""

    asked: list[Incoming] = field(default_factory=list)
    events: list[chat.Event] = field(default_factory=list)
    answer: chat.Response | None = None
    error: TidegateError | None = None
    """With events: after them, inside the stream."""

    async def __call__(self, request: Request, reply: HttpReply) -> None:
        assert request.path == "/v1" + DIALECT.path("m", stream=False)
        self.asked.append(DIALECT.parse_request(request.body))
        if self.answer is not None:
            await reply.start(200, [("content-type", "application/json")], streamed=False)
            await reply.end(DIALECT.answer_out(self.answer))
        elif self.events:
            await reply.start(200, [("content-type", "text/event-stream")], streamed=True)
            out = DIALECT.events_out(call_id="c1", model="m", created=1741476542, wants_usage=True)
            for event in self.events:
                if written := out.write([event]):
                    await reply.send(written)
            await reply.end(b"" if self.error is None else DIALECT.error_event(self.error, call_id="c1"))
        elif self.error is not None:
            await reply.start(self.error.http_status, [("content-type", "application/json")], streamed=False)
            await reply.end(DIALECT.error_body(self.error, call_id="c1"))


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[openai.AsyncOpenAI]:
    edge = Edge(service)
    port = await edge.start()
    try:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0) as client:
            yield client
    finally:
        await edge.close(grace_s=1)


async def read_out(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_a_stream_of_reasoning_and_words_is_accumulated_and_parsed() -> None:
    async with (
        client_of(Service(events=WORDS)) as client,
        client.responses.stream(model="m", input="Where?", text_format=Place) as stream,
    ):
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()
    assert response.output_parsed == Place(city="Róma")
    assert (response.id, response.model, response.status) == ("msg_01", "claude-opus-4-8", "completed")
    shown, hidden, _ = response.output
    assert isinstance(shown, ResponseReasoningItem)
    assert isinstance(hidden, ResponseReasoningItem)
    assert [part.text for part in shown.summary] == ["Let me see."]
    assert (shown.encrypted_content, hidden.encrypted_content) == ("signature:EqQBCk", "redacted:EmwKAh")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (30, 12, 42)
    assert response.usage.input_tokens_details.cached_tokens == 10
    assert response.usage.output_tokens_details.reasoning_tokens == 4
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.reasoning_summary_text.delta") == 2
    assert kinds[-1] == "response.completed"


async def test_parallel_calls_that_arrive_interleaved_keep_their_arguments_apart() -> None:
    async with client_of(Service(events=CALLS)) as client:
        tools = [openai.pydantic_function_tool(Weather)]
        named = [{"type": "function", **tool["function"]} for tool in tools]
        async with client.responses.stream(model="m", input="Where?", tools=named) as stream:  # type: ignore[arg-type]
            snapshots = [e.snapshot async for e in stream if e.type == "response.function_call_arguments.delta"]
            response = await stream.get_final_response()
    calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        ("call_a", "Weather", '{"city": "Paris"}'),
        ("call_b", "Weather", '{"city": "Rome"}'),
    ]
    assert response.output_text == "I will look."
    assert snapshots[-1] == '{"city": "Rome"}'


async def test_a_whole_answer() -> None:
    parts = (chat.Thinking("Hm.", "sig"), chat.Text("Hello"), chat.ToolCall("call_a", "Weather", "{}"))
    given = chat.Response("id_1", "m-2026", (chat.Choice(parts, "tool_calls"),), USAGE, created=1741476542)
    async with client_of(Service(answer=given)) as client:
        response = await client.responses.create(model="m", input="Hi")
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.usage is not None
    assert response.usage.total_tokens == 42


async def test_a_cut_answer_is_incomplete() -> None:
    events: list[chat.Event] = [chat.TextDelta("Once"), chat.Finished("length"), chat.Ended()]
    async with client_of(Service(events=events)) as client, client.responses.stream(model="m", input="Hi") as stream:
        last = [event async for event in stream][-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


async def test_an_error_inside_a_stream_is_the_sdk_s_api_error() -> None:
    service = Service(events=CALLS[:2], error=StreamBroken("the provider's stream ended too early"))
    async with client_of(service) as client, client.responses.stream(model="m", input="Hi") as stream:
        with pytest.raises(openai.APIError, match="ended too early") as caught:
            await read_out(aiter(stream))
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == "stream_broken"
    assert caught.value.body["call_id"] == "c1"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no.", param="input[0].role"), openai.BadRequestError),
        (UnknownModel("no route.", param="model"), openai.NotFoundError),
        (Saturated("later.", retry_after_s=1), openai.RateLimitError),
    ],
)
async def test_an_error_is_the_sdk_s_own_exception(error: TidegateError, kind: type[openai.APIStatusError]) -> None:
    async with client_of(Service(error=error)) as client:
        with pytest.raises(kind) as caught:
            await client.responses.create(model="m", input="Hi")
    assert caught.value.code == error.code
    assert caught.value.param == getattr(error, "param", None)


async def test_what_the_sdk_sends_is_understood() -> None:
    service = Service(answer=chat.Response("r", "m", (chat.Choice((chat.Text('{"city": "Rome"}'),), "stop"),)))
    async with client_of(service) as client:
        response = await client.responses.parse(
            model="m",
            instructions="Be brief.",
            input=[
                {"role": "user", "content": "Hi"},
                {"type": "function_call", "call_id": "c", "name": "Weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "rain"},
            ],
            text_format=Place,
            tools=[{"type": "function", "name": "Weather", "parameters": {"type": "object"}, "strict": True}],
            reasoning={"effort": "low"},
            max_output_tokens=5,
        )
    assert response.output_parsed == Place(city="Rome")
    read = DIALECT.request_in(service.asked[0])
    assert [message.role for message in read.messages] == ["system", "user", "assistant", "tool"]
    assert read.format is not None
    assert (read.format.kind, read.format.name, read.format.strict) == ("schema", "Place", True)
    assert (read.max_output_tokens, read.reasoning_effort, read.losses) == (5, "low", ())


async def test_a_stored_prompt_of_the_sdk_is_a_prompt_call() -> None:
    service = Service(answer=chat.Response("r", "m", (chat.Choice((chat.Text("ok"),), "stop"),)))
    async with client_of(service) as client:
        await client.responses.create(
            prompt={
                "id": "support/answer",
                "version": "6",
                "variables": {"question": "Why?", "context": {"type": "input_text", "text": "Because."}},
            }
        )
    asked = service.asked[0]
    assert asked.model == "prompt:support/answer@v6"
    assert asked.variables == {"question": "Why?", "context": "Because."}


async def test_a_whole_conversation_goes_round_through_the_sdk() -> None:
    """What a client got it may send back as input, as the SDK writes it."""
    service = Service(events=WORDS)
    async with client_of(service) as client:
        async with client.responses.stream(model="m", input="Where?") as stream:
            response = await stream.get_final_response()
        async with client.responses.stream(
            model="m",
            input=[{"role": "user", "content": "Where?"}, *[item.to_dict() for item in response.output]],  # type: ignore[list-item]
        ) as stream:
            await read_out(aiter(stream))
    turn = DIALECT.request_in(service.asked[1]).messages[1]
    assert turn.parts == (
        chat.Thinking("Let me see.", "EqQBCk"),
        chat.Thinking(redacted="EmwKAh"),
        chat.Text('{"city": "Róma"}'),
    )
