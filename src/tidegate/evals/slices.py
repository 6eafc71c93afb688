"""Where a change hurts: each gating metric by each tag. A table to read; no verdict depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from tidegate.core.evaluation import SliceVerdict
from tidegate.core.stats import benjamini_hochberg
from tidegate.evals.metrics import Question


def slices(questions: Sequence[Question], alpha: float) -> tuple[SliceVerdict, ...]:
    """Tags of two cases or more, the worst first; the p values are adjusted for the whole table."""
    rows: list[SliceVerdict] = []
    for question in questions:
        if question.before is None or question.same:
            continue
        for tag in dict.fromkeys(tag for case in question.cases for tag in case.tags):
            part = replace(question, cases=[case for case in question.cases if tag in case.tags])
            found = part.found(alpha)
            if found is None or found.compared is None or found.compared.n < 2:
                continue
            compared = found.compared
            rows.append(
                SliceVerdict(
                    tag=tag,
                    metric=question.gauge.name,
                    cases=compared.n,
                    baseline=compared.baseline,
                    candidate=compared.candidate,
                    delta=compared.delta,
                    interval=compared.interval,
                    p_worse=compared.p_read,
                    worse=False,
                    scale=question.gauge.scale,
                )
            )
    adjusted = benjamini_hochberg([row.p_worse for row in rows])
    table = [msgspec.structs.replace(row, p_worse=p, worse=p <= alpha) for row, p in zip(rows, adjusted, strict=True)]
    return tuple(sorted(table, key=lambda row: (row.p_worse, row.delta / (row.scale[1] - row.scale[0]))))
