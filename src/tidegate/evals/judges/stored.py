"""Judges as runs have kept them: what they measure and what passes, without the prompts that ask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785

from tidegate.evals.judges.kinds import KINDS
from tidegate.evals.judges.spec import MIN_KAPPA, JudgeSpec

DECIDES = ("format", "kind", "prompts", "votes", "reduce", "logprobs")
"""What a judge's digest is of."""


def is_calibration(suite: Any) -> bool:
    """Whether what a run was stored under is a judge, and not a suite."""
    return isinstance(suite, dict) and "checks" not in suite and _is_judge(suite)


def judges_of(suite: Mapping[str, Any]) -> list[JudgeSpec]:
    """Of a stored suite. They can not be asked; whether they may gate is not known here: `gates` is None."""
    written = suite.get("judges")
    found = written.items() if isinstance(written, dict) else ()
    return [stored(name, plain) for name, plain in found if _is_judge(plain)]


def stored(name: str, plain: Mapping[str, Any]) -> JudgeSpec:
    """One judge, from a suite's entry, or from the text that a calibration is stored under."""
    text = rfc8785.dumps({key: plain[key] for key in DECIDES}).decode()
    return JudgeSpec(
        name=name,
        kind=KINDS[plain["kind"]],
        jurors=(),
        pass_at=plain.get("pass_at"),
        votes=plain["votes"],
        reduce=plain["reduce"],
        fields=plain.get("fields", {}),
        min_kappa=plain.get("min_kappa", MIN_KAPPA),
        logprobs=plain["logprobs"],
        digest=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
        plain=plain,
        gates=None,
    )


def _is_judge(plain: Any) -> bool:
    return isinstance(plain, dict) and all(key in plain for key in DECIDES) and plain["kind"] in KINDS
