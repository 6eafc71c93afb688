"""Whether a judge and the model it judges are kin: models favour their own family's answers (arXiv:2306.05685 §3.3)."""

from __future__ import annotations

import re

from tidegate.core.artifact import Artifact
from tidegate.evals.judges.spec import JudgeSpec

_FAMILIES = {
    **{
        name: name
        for name in ("claude", "gemini", "gpt", "llama", "qwen", "deepseek", "grok", "command", "phi", "nova")
    },
    "gemma": "gemini",
    "mistral": "mistral",
    "mixtral": "mistral",
    "chatgpt": "gpt",
    "codestral": "mistral",
}
_REASONING = re.compile(r"o[1-9](?:-|$)")
_WORD = re.compile(r"[a-z]+")


def family(model: str) -> str:
    """`gpt` of openai/gpt-4.1-2025-04-14; the first word of a name that is not known."""
    name = model.lower().rpartition("/")[2]
    if _REASONING.match(name):
        return "gpt"
    words = _WORD.findall(name)
    return next((_FAMILIES[word] for word in words if word in _FAMILIES), words[0] if words else name)


def kinship(judge: JudgeSpec, judged: Artifact) -> str | None:
    """One sentence when a prompt of the judge runs on a model of the judged one's family; else None."""
    own = family(judged.model)
    if all(family(juror.artifact.model) != own for juror in judge.jurors):
        return None
    return (
        f"the judge {judge.name!r} and the model it judges are of one family ({own}), and models favour their own: "
        "let another family judge."
    )
