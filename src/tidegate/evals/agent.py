"""
One repeat of an agent: the model is called, its tools answer from the case's script, until it is done.

    call the model ─▶ it calls no tool, or what stops it is there ─▶ done
          ▲        └▶ it calls tools: the script answers each, in order ─┐
          └──────────────── its answer and their results follow ◀────────┘

What can not go on ends too, and then the repeat fails with a reason, and is no error: too many steps, a call that
nothing is scripted for, more than it may cost. An error of one call is the error of all: nothing is scored then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tidegate.core.evaluation import ToolUse
from tidegate.evals.checks import clip
from tidegate.evals.judges.evidence import storable
from tidegate.evals.script import DEFAULT_STEPS, Script, Stage, Stop
from tidegate.ports import Caller, PromptAnswer, PromptCall

Number = TypeVar("Number", int, float)

Affords = Callable[[PromptCall, int, int], bool]
"""(the next call, what the repeat has cost, what it may cost, in nano-USD) → whether there is money for it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A loop that came to its end."""

    answer: PromptAnswer
    """The last one, its tokens, cost, latency and tool calls those of the whole loop."""
    call_ids: tuple[str, ...] = ()
    """Of a loop, every call's; empty of a single call."""
    unfinished: str | None = None
    """Why the repeat fails, whatever its checks say."""


async def converse(
    caller: Caller, call: PromptCall, script: Script, *, affords: Affords = lambda *_: True
) -> Ended | None:
    """
    The whole loop of one repeat; None when there was no money for its next call: then it counts for nothing.

    A call that fails ends it with that error, and with what the calls before it cost.
    """
    stage, stop = Stage(script), script.stop or Stop()
    most = script.max_steps or DEFAULT_STEPS
    answers: list[PromptAnswer] = []
    uses: list[ToolUse] = []
    following = call
    while True:
        said = await caller.call(following)
        answers.append(said)
        asked = _named(said.tool_calls, uses)
        done = not asked or stop.matches(said.output) or any(use.name in stop.tool for use in asked)
        if said.error is not None or done:
            return _ended(answers, [*uses, *asked])
        if len(answers) == most:
            names = ", ".join(dict.fromkeys(clip(use.name, 40) for use in asked))
            steps = f"{most} step{'s' if most > 1 else ''}"
            return _ended(answers, [*uses, *asked], f"is not done after {steps} (max_steps), and still calls {names}")
        played = [msgspec.structs.replace(use, result=stage.play(use)) for use in asked]
        lost = next((_unscripted(use) for use in played if use.result is None), None)
        if why := lost or _too_dear(answers, stop):
            return _ended(answers, [*uses, *asked], why)
        uses += played
        following = msgspec.structs.replace(
            following,
            messages=(*following.messages, _assistant(said.output, played), *map(_tool, played)),
            tags={**call.tags, "step": str(len(answers) + 1)},
        )
        costs = [answer.cost_nano_usd or 0 for answer in answers]
        if not affords(following, sum(costs), max(costs)):
            return None


def told(calls: Sequence[ToolUse]) -> dict[str, Any]:
    """A trajectory as judges are shown it: `{calls, tools, results}`; empty without one."""
    steps = [
        {"tool": use.name, "arguments": use.arguments, **({} if use.result is None else {"result": use.result})}
        for use in calls
    ]
    results = [use.result for use in calls if use.result is not None]
    return {"calls": steps, "tools": [use.name for use in calls], "results": results} if calls else {}


def _named(asked: Sequence[ToolUse], before: Sequence[ToolUse]) -> list[ToolUse]:
    """The calls, each under an id that no other of the loop has: some servers give none, or count from 0 every time."""
    known = {use.id for use in before}
    named: list[ToolUse] = []
    for use in asked:
        taken = not use.id or use.id in known
        own = f"call_{len(before) + len(named) + 1}_{use.id}".rstrip("_") if taken else use.id
        known.add(own)
        named.append(msgspec.structs.replace(use, id=own))
    return named


def _assistant(text: str, calls: Sequence[ToolUse]) -> dict[str, Any]:
    """The model's own message, as OpenAI Chat spells it."""
    return {
        "role": "assistant",
        "content": storable(text) or None,
        "tool_calls": [
            {
                "id": storable(use.id),
                "type": "function",
                "function": {"name": storable(use.name), "arguments": storable(_written(use.arguments))},
            }
            for use in calls
        ],
    }


def _tool(use: ToolUse) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": storable(use.id), "content": use.result}


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _unscripted(use: ToolUse) -> str:
    return (
        f"nothing is scripted for {clip(use.name, 60)}({clip(_written(use.arguments), 120)}): add a line to its tools, "
        "or one without `when` for all the rest"
    )


def _too_dear(answers: Sequence[PromptAnswer], stop: Stop) -> str | None:
    if stop.max_cost_usd is None:
        return None
    cost = _sum([answer.cost_nano_usd for answer in answers])
    if cost is None:
        return "stop.max_cost_usd can not be held, as nobody knows the price of this model"
    if cost < stop.max_cost_usd * 1e9:
        return None
    steps = f"{len(answers)} step{'s' if len(answers) > 1 else ''}"
    return f"is not done after ${cost / 1e9:.6f} and {steps} (stop.max_cost_usd is ${stop.max_cost_usd:g})"


def _ended(answers: Sequence[PromptAnswer], uses: Sequence[ToolUse], unfinished: str | None = None) -> Ended:
    last = answers[-1]
    counted = answers if last.error is None else answers[:-1]
    answer = msgspec.structs.replace(
        last,
        tool_calls=tuple(uses),
        cost_nano_usd=_sum([one.cost_nano_usd for one in counted]),
        input_tokens=_sum([one.input_tokens for one in counted]),
        output_tokens=_sum([one.output_tokens for one in counted]),
        latency_s=_sum([one.latency_s for one in answers]),
    )
    return Ended(answer, tuple(one.call_id for one in answers if one.call_id is not None), unfinished)


def _sum(values: Sequence[Number | None]) -> Number | None:
    """None where one is not known, or there is none."""
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(values) else None
