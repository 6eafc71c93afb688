"""A calibration is kept by the control store as any run, here and through a server, and reads as it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.test_remote import World
from tests.unit.evals import ScriptedCaller
from tidegate.core.evaluation import Score
from tidegate.evals.judges.calibration import barred, calibrate, find, load_labels
from tidegate.evals.suite import load_suite
from tidegate.fakes import FixedClock
from tidegate.ports import PromptAnswer, PromptCall, PromptRegistry
from tidegate.prompts.render import render
from tidegate.simulate.judge import verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "rag"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with closing(made.own):
        yield made


WAYS: dict[str, Callable[[World], PromptRegistry]] = {
    "here": lambda world: world.own,
    "through a server": lambda world: world.as_(world.key("ci", "editor")),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
async def test_a_calibration_is_read_as_it_was_made(world: World, way: Callable[[World], PromptRegistry]) -> None:
    registry = way(world)
    judge = load_suite(EXAMPLE / "prompts/docs/answer").judges[0]
    labels = load_labels(EXAMPLE / "judges/grounded/labels.jsonl", judge)

    def answer(call: PromptCall) -> PromptAnswer:
        messages = render(registry.artifact(call.digest), call.variables)
        texts = [message["content"] for message in [*messages, *call.messages]]
        return PromptAnswer(verdict(texts), call_id="c", cost_nano_usd=1_000)

    assert "not calibrated" in str(barred(registry, judge))
    made = await calibrate(judge, labels, registry, ScriptedCaller(answer), clock=FixedClock(), run_id="r1")
    assert made.gates is None
    assert barred(registry, judge) is None
    found = find(registry, judge)
    assert found is not None
    assert found[0] == made
    assert registry.document(judge.digest) == judge.text
    score = registry.run("r1").results[0].scores[0]
    assert (type(score), score.value, score.cost_nano_usd) == (Score, 1, 1_000)
    assert [version.number for version in registry.versions("judges/grounded")] == [1]

    worse = ScriptedCaller(lambda _: PromptAnswer("I can not say."))
    later = await calibrate(judge, labels, registry, worse, clock=FixedClock(), run_id="r2")
    assert "0 scored labels" in str(later.gates)
    assert barred(registry, judge) == later.gates, "the last calibration counts"
