"""
The one canonical shape of a conversation: what a request asks, what an answer says, and the events of a stream.

Every dialect translates to and from this, so N dialects need 4N functions and never N². It is used only when client and
provider speak different dialects; within one dialect bytes pass through. It holds what at least two dialects can say.
What only one of them knows is a loss when it is crossed, and `Loss` names it (docs/concepts/dialects.md).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.core.usage import Usage

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Words. `cache_after` marks the end of a prefix that the provider should cache (Anthropic's cache_control)."""

    text: str
    cache_after: bool = False


class Image(msgspec.Struct, frozen=True, tag="image"):
    """An image by `url`, or by base64 `data` with its media type. `detail` is OpenAI's low, high or auto."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None


class File(msgspec.Struct, frozen=True, tag="file"):
    """A document by `url`, by base64 `data`, or by the provider's own `id`."""

    url: str | None = None
    data: str | None = None
    id: str | None = None
    media_type: str | None = None
    name: str | None = None


class Audio(msgspec.Struct, frozen=True, tag="audio"):
    """Base64 audio; `format` is wav, mp3 …"""

    data: str
    format: str


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    """The model asks for a function. `arguments` is JSON text, exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """What the function gave back."""

    id: str
    parts: tuple[Text | Image | File, ...]
    is_error: bool = False


class Thinking(msgspec.Struct, frozen=True, tag="thinking"):
    """
    Reasoning that is shown, or an opaque `redacted` blob. `signature` lets the provider take it back.

    Nobody else can. A dialect's name and a colon before either say whose it is; Anthropic's stand bare.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The model declines, in words of its own."""

    text: str


Part = Text | Image | File | Audio | ToolCall | ToolResult | Thinking | Refusal


class Message(msgspec.Struct, frozen=True):
    """One turn. Tool results are messages of role `tool`, one per result."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """auto, none, required (some tool), or tool (the one called `name`)."""

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None


class Format(msgspec.Struct, frozen=True):
    """What the answer must be: text, any JSON, or JSON under `schema`."""

    kind: Literal["text", "json", "schema"] = "text"
    schema: dict[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None


class Request(msgspec.Struct, frozen=True):
    """What a client asks. None means: the client did not say."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    count: int | None = None
    """How many answers (`n`)."""
    logprobs: int | None = None
    """0: of the chosen tokens only; k: also of the k most likely."""
    reasoning_effort: str | None = None
    """none, minimal, low, medium, high, xhigh or max: OpenAI's words."""
    reasoning_tokens: int | None = None
    """A budget: Anthropic's and Gemini's way to say the same."""
    user: str | None = None
    store: bool | None = None
    """OpenAI may keep the answer, so that a later request can refer to it; its two dialects differ in their default."""
    losses: tuple[Loss, ...] = ()
    """What the client's dialect said that this shape can not."""


class Loss(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing a target can not express. The policy (warn, drop, reject) decides what follows."""

    field: str
    why: str
    essential: bool = False
    """It refers to what another provider keeps: without it this is another conversation, so no policy drops it."""


class Choice(msgspec.Struct, frozen=True):
    """One answer."""

    parts: tuple[Part, ...]
    finish: FinishReason | None
    logprobs: Any = None
    """OpenAI's shape `{"content": [...], "refusal": ...}`, or None."""


class Response(msgspec.Struct, frozen=True):
    """What a provider answered."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    fingerprint: str | None = None
    created: int = 0
    """Seconds since 1970; 0 when the dialect does not say."""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The stream begins."""

    id: str
    model: str
    usage: Usage | None = None
    """Anthropic tells the input tokens first."""
    fingerprint: str | None = None


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """More words of answer `choice`."""

    text: str
    choice: int = 0
    logprobs: list[Any] | None = None
    """Of the tokens of `text`, in OpenAI's shape."""


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking"):
    """More reasoning; a signature or a redacted blob comes whole."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    choice: int = 0


class RefusalDelta(msgspec.Struct, frozen=True, tag="refusal"):
    """More words of a refusal."""

    text: str
    choice: int = 0


class ToolCallStarted(msgspec.Struct, frozen=True, tag="tool_call_started"):
    """A tool call begins. `index` numbers the tool calls of its answer from 0; id and name come once, here."""

    index: int
    id: str
    name: str
    choice: int = 0


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_call_delta"):
    """More JSON text of the arguments of tool call `index`."""

    index: int
    arguments: str
    choice: int = 0


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """Answer `choice` is complete."""

    reason: FinishReason
    choice: int = 0


class UsageReported(msgspec.Struct, frozen=True, tag="usage"):
    """The final counts; the last one counts."""

    usage: Usage


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The dialect's own end of the stream has come (`[DONE]`, `message_stop` …)."""


Event = (
    Started
    | TextDelta
    | ThinkingDelta
    | RefusalDelta
    | ToolCallStarted
    | ToolCallDelta
    | Finished
    | UsageReported
    | Ended
)
