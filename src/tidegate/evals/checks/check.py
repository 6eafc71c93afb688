"""
What every check is made of: a probe that states a fact about an answer, and the wish that the fact is held against.

`not-NAME` is the same probe with the opposite wish, so a check's reason is always the fact that was not wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from tidegate.core.artifact import Artifact
from tidegate.core.errors import nearest
from tidegate.core.evaluation import CheckResult
from tidegate.ports import PromptAnswer

NOT = "not-"
MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe may look at: what was said, and the artifact that said it, where that is known."""

    said: PromptAnswer
    artifact: Artifact | None = None

    @property
    def text(self) -> str:
        return self.said.output


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether the condition holds, and the fact that says so, as the rest of a sentence about the answer."""

    holds: bool
    fact: str
    score: float | None = None
    """0 to 1, of a probe that grades."""
    opposite: bool | None = None
    """Whether the `not-` form passes, where that is not simply `not holds`."""


Probe = Callable[[Answer], Finding]


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of check. `make(value, **options)` raises ValueError with one sentence when they do not fit."""

    make: Callable[..., Probe]
    summary: str
    """One line for the reference."""
    example: Any
    """As a suite spells it."""
    options: tuple[str, ...] = ()
    """What may stand beside the type, `weight` apart."""
    needs_logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One ready check. `name` is what results carry, `type` what the user wrote (`not-contains`)."""

    name: str
    type: str
    probe: Probe
    weight: float = 1.0
    needs_logprobs: bool = False
    """The call has to ask for the tokens' log-probabilities."""

    def judge(self, answer: PromptAnswer, artifact: Artifact | None = None) -> CheckResult:
        """What this check says of an answer. `artifact` is the version that gave it."""
        finding = self.probe(Answer(answer, artifact))
        passed, score = finding.holds, finding.score
        if self.type.startswith(NOT):
            passed = not finding.holds if finding.opposite is None else finding.opposite
            score = None if score is None else 1 - score
        reason = "" if passed else clip(finding.fact, MAX_REASON)
        return CheckResult(self.name, passed, reason, None if score is None else round(score, 6), self.weight)


def unknowable(fact: str) -> Finding:
    """A finding that passes neither form: what the check asks about is not known of this answer."""
    return Finding(False, fact, opposite=False)


def graded(what: str, score: float, threshold: float) -> Finding:
    """A score that has to reach a threshold."""
    holds = score >= threshold - 1e-9
    fact = f"its {what} is {_figure(score, threshold)}, {'at least' if holds else 'under'} the threshold {threshold:g}"
    return Finding(holds, fact, score)


def _figure(score: float, threshold: float) -> str:
    """With as many digits as it takes to see on which side of the threshold it is."""
    return next((f"{score:.{n}f}" for n in (2, 3, 4) if abs(score - threshold) >= 10**-n), f"{score:.6f}")


def clip(text: str, limit: int) -> str:
    """On one line and at most `limit` characters long, the cut marked by `…`."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def quoted(text: str, limit: int = 60) -> str:
    """For a sentence."""
    return f"'{clip(text, limit)}'"


def listed(names: list[str]) -> str:
    """Names for a sentence; `none` without any."""
    return ", ".join(clip(name, 40) for name in names[:8]) + (" …" if len(names) > 8 else "") if names else "none"


def as_text(value: Any) -> str:
    """A scalar as JSON would write it, a string as it is. Raises ValueError."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise ValueError("needs a text to look for")


def as_number(value: Any, what: str, *, least: float = 0) -> float:
    """A finite number, `least` or more; also as a text, since templates make texts. Raises ValueError."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not least <= number < float("inf"):
        raise ValueError(f"{what} is a number, {least:g} or more, not {value!r}")
    return number


def as_share(value: Any) -> float:
    """A threshold of a score. Raises ValueError."""
    number = as_number(value, "threshold")
    if number > 1:
        raise ValueError(f"threshold is a score from 0 to 1, not {value!r}")
    return number


def as_count(value: Any, what: str) -> int:
    """A whole number, 0 or more; also as a text. Raises ValueError."""
    number = as_number(value, what)
    if number != int(number):
        raise ValueError(f"{what} is a whole number, not {value!r}")
    return int(number)


def as_map(value: Any, needed: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """A map with none but the known keys. Raises ValueError."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"takes {needed}")
    for key in value:
        if key not in known:
            raise ValueError(f"takes {' and '.join(known)}, not {key!r}.{nearest(str(key), known)}")
    return value


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but true does not equal 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def partly(said: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; maps may hold more, lists may not."""
    if isinstance(wanted, dict):
        return isinstance(said, dict) and all(key in said and partly(said[key], one) for key, one in wanted.items())
    if isinstance(wanted, list):
        return isinstance(said, list) and len(said) == len(wanted) and all(map(partly, said, wanted))
    return same(said, wanted)


def parse(text: str) -> Any:
    """JSON as the standard has it: no NaN. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=not_json)


def not_json(constant: str) -> NoReturn:
    """What reads NaN and the like, for `json`. Raises ValueError."""
    raise ValueError(f"{constant} is not a JSON value")
