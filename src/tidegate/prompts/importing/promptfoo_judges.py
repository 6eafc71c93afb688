"""
Assertions that a model judges → judges of ours: a prompt each under `judges/`, and what they need of each case.

A rubric, a closed question and factuality are a binary verdict; faithfulness and recall are shares, as they are there.
A judge sees every case of a suite, and does not apply where a case lacks what it needs: so what an assertion says
stands in its case's `expected`, under the judge's name. The prompts are our own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.core.artifact import Message
from tidegate.prompts.importing.outcome import Draft, JudgeUse

NEAREST = {
    **dict.fromkeys(("similar", "similar:cosine", "similar:dot", "similar:euclidean"), "`levenshtein`, or `rouge-n`"),
    **dict.fromkeys(("answer-relevance", "context-relevance"), "a judge of this kind, which counts otherwise"),
    "g-eval": "a rubric judge, which says 1 to 5",
    "search-rubric": "a judge: here none searches the web",
    "moderation": "a binary judge with your rules",
    "classifier": "a binary judge for each class",
}
"""What to write here instead of what means something else there."""


@dataclass(frozen=True, slots=True)
class Judging:
    """One kind of assertion: the kind of judge that means the same, and the prompt of one."""

    kind: str
    needs: str | None
    """The judge's input that the assertion's value is; None when it has none."""
    context: bool
    """Whether the variable `context` is judged too."""
    description: str
    system: str

    def prompt(self, name: str, model: str) -> Draft:
        shown = [*(["context"] if self.context else []), *([self.needs] if self.needs else [])]
        shown += ["answer"] if self.kind != "context-recall" else []
        user = "\n\n".join(f"The {label}:\n{{{{ {label} }}}}" for label in shown)
        return Draft(
            name,
            model,
            [Message("system", self.system), Message("user", user)],
            self.description,
            params={"temperature": 0, "max_output_tokens": 2_000},
            inputs={label: {"type": "string"} for label in shown},
        )


_CRITERION = Judging(
    "binary",
    "criterion",
    context=False,
    description="Does an answer meet a criterion?",
    system="You decide whether an answer meets a criterion. Go by the criterion alone, not by whether you like the "
    "answer.\npass: it does. fail: it does not, or one can not tell.",
)
_FACTS = Judging(
    "binary",
    "reference",
    context=False,
    description="Does an answer contradict the right one?",
    system="You compare the facts of an answer with those of a reference that an expert wrote. Style and wording do "
    "not count.\npass: nothing contradicts the reference, whether the answer says less, more or the same.\n"
    "fail: the two contradict one another.",
)
JUDGINGS: Mapping[str, Judging] = {
    "llm-rubric": _CRITERION,
    "model-graded-closedqa": _CRITERION,
    "factuality": _FACTS,
    "model-graded-factuality": _FACTS,
    "context-faithfulness": Judging(
        "groundedness",
        None,
        context=True,
        description="Which claims of an answer does its context support?",
        system="You check an answer against the context it was written from. Take the answer apart into factual "
        "claims. A claim is supported only when the context says so.",
    ),
    "context-recall": Judging(
        "context-recall",
        "reference",
        context=True,
        description="Which sentences of the right answer does the context hold?",
        system="You check whether a context holds what a right answer needs. For every sentence of the reference say "
        "whether the context holds what it says, in whatever words.",
    ),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One assertion of one case."""

    type: str
    model: str
    value: str | None
    pass_at: float | None
    context: str | None


def seat(cases: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[dict[str, JudgeUse], list[dict[str, Any]]]:
    """The judges of a suite by name, and what each case expects of them. A case has `judged`."""
    names: dict[tuple[str, str, float | None, int], str] = {}
    expected: list[dict[str, Any]] = []
    for case in cases:
        needs: dict[str, Any] = {}
        for at, judged in enumerate(case.judged):
            alike = (judged.type, judged.model, judged.pass_at)
            nth = sum((one.type, one.model, one.pass_at) == alike for one in case.judged[:at])
            name = names.setdefault((*alike, nth), _free(judged.type, names.values()))
            said = {"context": judged.context, JUDGINGS[judged.type].needs: judged.value}
            needs[name] = {key: one for key, one in said.items() if key is not None and one is not None}
        expected.append(needs)
    uses = {}
    for (type_, model, pass_at, _), name in names.items():
        judging = JUDGINGS[type_]
        fields = {judging.needs: f"expected.{name}.{judging.needs}"} if judging.needs else {}
        if judging.context:
            everywhere = all(name in needs for needs in expected)
            fields["context"] = f"expected.{name}.context"
            if everywhere:
                fields["context"] = "inputs.context" if "context" in inputs else "expected.context"
                for needs in expected:
                    del needs[name]["context"]
        uses[name] = JudgeUse(judging.kind, (type_, model), pass_at, fields)
    return uses, [{name: needs[name] for name in needs if needs[name]} for needs in expected]


def prompts(drafts: Sequence[Draft]) -> dict[tuple[str, str], Draft]:
    """The judges' own prompts that drafts ask for: one for each type and model."""
    wanted = list(dict.fromkeys(use.prompt for draft in drafts for use in draft.judges.values()))
    made: dict[tuple[str, str], Draft] = {}
    for type_, model in wanted:
        name = _free(type_, [draft.name for draft in made.values()])
        made[type_, model] = JUDGINGS[type_].prompt(name, model)
    return made


def _free(wanted: str, taken: Any) -> str:
    number, chosen = 1, wanted
    while chosen in taken:
        number += 1
        chosen = f"{wanted}-{number}"
    return chosen
