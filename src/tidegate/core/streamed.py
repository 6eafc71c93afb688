"""A whole answer as the events of a stream, and the events of a stream as a whole answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tidegate.core import chat
from tidegate.core.usage import Usage

SIGNS_THE_NEXT = "gemini:"
"""How signatures begin that belong to the part after them."""


def events_of(response: chat.Response) -> Iterator[chat.Event]:
    """The stream that says the same as `response`, one event per part."""
    yield chat.Started(response.id, response.model, response.usage, response.fingerprint)
    for at, choice in enumerate(response.choices):
        calls = 0
        for part in choice.parts:
            match part:
                case chat.Text():
                    yield chat.TextDelta(part.text, at)
                case chat.Refusal():
                    yield chat.RefusalDelta(part.text, at)
                case chat.Thinking():
                    yield from _thinking(part, at)
                case chat.ToolCall():
                    yield chat.ToolCallStarted(calls, part.id, part.name, at)
                    yield chat.ToolCallDelta(calls, part.arguments, at)
                    calls += 1
                case _:  # no stream of any dialect carries these
                    pass
        if choice.finish is not None:
            yield chat.Finished(choice.finish, at)
    if response.usage is not None:
        yield chat.UsageReported(response.usage)
    yield chat.Ended()


def _thinking(part: chat.Thinking, at: int) -> Iterator[chat.Event]:
    """Its text first: a signature or a redacted blob comes whole, in an event of its own, and ends the block."""
    if part.text:
        yield chat.ThinkingDelta(part.text, choice=at)
    if part.signature is not None or part.redacted is not None:
        yield chat.ThinkingDelta(signature=part.signature, redacted=part.redacted, choice=at)


def response_of(events: Iterable[chat.Event], *, created: int = 0) -> chat.Response:
    """What a stream said in all."""
    started = chat.Started("", "")
    usage: Usage | None = None
    choices: dict[int, _Choice] = {}
    for event in events:
        match event:
            case chat.Started():
                started, usage = event, event.usage or usage
            case chat.UsageReported():
                usage = event.usage
            case chat.Ended():
                break
            case _:
                choices.setdefault(event.choice, _Choice()).add(event)
    return chat.Response(
        id=started.id,
        model=started.model,
        choices=tuple(choices[at].whole() for at in sorted(choices)),
        usage=usage,
        fingerprint=started.fingerprint,
        created=created,
    )


class _Choice:
    """One answer as it grows."""

    def __init__(self) -> None:
        self._parts: list[chat.Part] = []
        self._calls: dict[int, int] = {}
        """Index of a tool call → its place among the parts."""
        self._finish: chat.FinishReason | None = None

    def add(self, event: chat.Event) -> None:
        match event:
            case chat.TextDelta():
                self._grow(chat.Text(event.text))
            case chat.RefusalDelta():
                self._grow(chat.Refusal(event.text))
            case chat.ThinkingDelta():
                self._think(chat.Thinking(event.text, event.signature, event.redacted))
            case chat.ToolCallStarted():
                self._calls[event.index] = len(self._parts)
                self._parts.append(chat.ToolCall(event.id, event.name, ""))
            case chat.ToolCallDelta() if event.index in self._calls:
                place = self._calls[event.index]
                call = self._parts[place]
                if isinstance(call, chat.ToolCall):
                    self._parts[place] = chat.ToolCall(call.id, call.name, call.arguments + event.arguments)
            case chat.Finished():
                self._finish = event.reason
            case _:
                pass

    def whole(self) -> chat.Choice:
        return chat.Choice(tuple(self._parts), self._finish)

    def _grow(self, more: chat.Text | chat.Refusal) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(last, chat.Text) and isinstance(more, chat.Text):
            self._parts[-1] = chat.Text(last.text + more.text)
        elif isinstance(last, chat.Refusal) and isinstance(more, chat.Refusal):
            self._parts[-1] = chat.Refusal(last.text + more.text)
        else:
            self._parts.append(more)

    def _think(self, more: chat.Thinking) -> None:
        """A block goes on until its signature. What is redacted stands alone, and so does what signs the next part."""
        last = self._parts[-1] if self._parts else None
        alone = more.redacted is not None or (more.signature or "").startswith(SIGNS_THE_NEXT)
        if isinstance(last, chat.Thinking) and last.signature is None and last.redacted is None and not alone:
            self._parts[-1] = chat.Thinking(last.text + more.text, more.signature)
        else:
            self._parts.append(more)
