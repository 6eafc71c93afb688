"""
What each kind of judge is asked, and the exact definition of its score (docs/concepts/rag-metrics.md).

A kind turns the material of one judgement into what the verdict has to look like, and a verdict into a value. Where
there is nothing to judge (no claims, no passages) a judgement does not apply: it is unscored and counted, neither 0
nor 1. What a judge says it read is looked up: a quote that does not occur in the context supports nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tidegate.evals.checks import clip
from tidegate.evals.judges.evidence import occurs, passages, sentences
from tidegate.evals.judges.verdict import Unreadable

MAX_ITEMS = 200
RUBRIC = {str(score): float(score) for score in range(1, 6)}
BINARY = {"fail": 0.0, "pass": 1.0}
SIDES = {"A": 1.0, "tie": 0.5, "B": 0.0}
"""The worth of a verdict for the answer that stands first."""


class NotApplicable(ValueError):
    """There is nothing to judge; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict's value on its kind's scale, and the judge's reason."""

    value: float
    reason: str


Material = Mapping[str, Any]
"""What is judged, by input of the judge's prompt: texts, and the context as a text or a list of passages."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to judge."""

    name: str
    needs: tuple[str, ...]
    """Inputs that the judge's prompt must declare."""
    scale: tuple[float, float]
    read: Callable[[Mapping[str, Any], Material], Reading]
    """A verdict → its value. Raises Unreadable, NotApplicable."""
    ask: str
    """The verdict's members after its id, as the judge is told them."""
    menu: Mapping[str, float] | None = None
    """Where the verdict is one word of several: what each is worth."""
    key: str = "verdict"
    """The member of the verdict that holds this word."""
    numbered: str | None = None
    """The input whose parts are numbered, and have to be judged one by one."""
    empty: Callable[[Material], str | None] = lambda _: None
    """Why there is nothing to judge, before any call; None when there is."""
    default_pass_at: float | None = None

    def items(self, material: Material) -> list[str]:
        """The parts of the numbered input."""
        return _items(self.numbered or "", material)


def chosen(menu: Mapping[str, float], key: str, verdict: Mapping[str, Any]) -> str:
    """The entry of the menu that a verdict names. Raises Unreadable."""
    said = verdict.get(key)
    word = said.strip() if isinstance(said, str) else said
    if isinstance(word, bool):
        word = {True: "pass", False: "fail"}[word]
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    word = str(word) if isinstance(word, int) else word
    for entry in menu:
        if isinstance(word, str) and word.casefold() == entry.casefold():
            return entry
    shown = "nothing" if said is None else f"'{clip(str(said), 40)}'"
    raise Unreadable(f"the judge's {key} is {shown}, and {', '.join(menu)} were offered")


def _from_menu(menu: Mapping[str, float], key: str) -> Callable[[Mapping[str, Any], Material], Reading]:
    def read(verdict: Mapping[str, Any], _: Material) -> Reading:
        return Reading(menu[chosen(menu, key, verdict)], _reason(verdict))

    return read


def _groundedness(verdict: Mapping[str, Any], material: Material) -> Reading:
    """Claims that the context supports, with words from it to show for it, out of all claims of the answer."""
    claims = _list(verdict, "claims")
    if not claims:
        raise NotApplicable("the answer makes no claim")
    texts = passages(material["context"])
    supported, doubts = 0, []
    for claim in claims:
        said = clip(_text(claim, "claim"), 80)
        if not _flag(claim, "supported"):
            doubts.append(f"unsupported: '{said}'")
        elif not occurs(str(claim.get("quote") or ""), texts):
            doubts.append(f"its quote is not in the context: '{said}'")
        else:
            supported += 1
    return Reading(supported / len(claims), _counted(supported, len(claims), "claims are grounded", doubts))


def _context_recall(verdict: Mapping[str, Any], material: Material) -> Reading:
    """Sentences of the reference that the context holds, with words from it to show for it, out of all."""
    wanted, texts = _items("reference", material), passages(material["context"])
    found, doubts = 0, []
    for number, item in _numbered(verdict, "sentences", "sentence", len(wanted)).items():
        said = clip(wanted[number - 1], 80)
        if not _flag(item, "attributed"):
            doubts.append(f"not in the context: '{said}'")
        elif not occurs(str(item.get("quote") or ""), texts):
            doubts.append(f"its quote is not in the context: '{said}'")
        else:
            found += 1
    return Reading(found / len(wanted), _counted(found, len(wanted), "sentences of the reference are found", doubts))


def _relevant(verdict: Mapping[str, Any], material: Material) -> list[bool]:
    count = len(_items("context", material))
    judged = _numbered(verdict, "passages", "passage", count)
    return [_flag(judged[number], "relevant") for number in range(1, count + 1)]


def _context_relevance(verdict: Mapping[str, Any], material: Material) -> Reading:
    """Passages that help to answer the question, out of all passages."""
    relevant = _relevant(verdict, material)
    return Reading(fmean(relevant), _counted(sum(relevant), len(relevant), "passages are relevant", []))


def _context_precision(verdict: Mapping[str, Any], material: Material) -> Reading:
    """Mean of precision@k over the ranks k that hold a relevant passage; 0 when none does."""
    relevant = _relevant(verdict, material)
    precisions = [fmean(relevant[:rank]) for rank, hit in enumerate(relevant, start=1) if hit]
    ranks = ", ".join(str(rank) for rank, hit in enumerate(relevant, start=1) if hit) or "none"
    return Reading(fmean(precisions) if precisions else 0.0, f"relevant ranks of {len(relevant)}: {ranks}")


def _answer_relevance(verdict: Mapping[str, Any], _: Material) -> Reading:
    """Statements of the answer that bear on the question, out of all."""
    statements = _list(verdict, "statements")
    if not statements:
        raise NotApplicable("the answer states nothing")
    off = [clip(_text(item, "statement"), 80) for item in statements if not _flag(item, "relevant")]
    on = len(statements) - len(off)
    doubts = [f"off the question: '{said}'" for said in off]
    return Reading(on / len(statements), _counted(on, len(statements), "statements are relevant", doubts))


def _items(name: str, material: Material) -> list[str]:
    return passages(material.get(name)) if name == "context" else sentences(material.get(name))


def _list(verdict: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = verdict.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Unreadable(f"the judge's verdict has no list of {key}")
    if len(items) > MAX_ITEMS:
        raise Unreadable(f"the judge lists more than {MAX_ITEMS} {key}")
    return items


def _numbered(verdict: Mapping[str, Any], key: str, name: str, count: int) -> dict[int, Mapping[str, Any]]:
    """What was said of each numbered part; each has to be there once."""
    items = _list(verdict, key)
    judged = {item[name]: item for item in items if isinstance(item.get(name), int)}
    if len(items) != count or sorted(judged) != list(range(1, count + 1)):
        raise Unreadable(f"the judge has to judge each of the {count} {key} once, and listed {len(items)}")
    return judged


def _flag(item: Mapping[str, Any], key: str) -> bool:
    value = item.get(key)
    if not isinstance(value, bool):
        raise Unreadable(f"the judge's {key!r} is {clip(str(value), 40)!r}, and true or false were offered")
    return value


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unreadable(f"the judge lists a {key} without its text")
    return value


def _reason(verdict: Mapping[str, Any]) -> str:
    reason = verdict.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise Unreadable("the judge gives no reason")
    return clip(reason, 300)


def _counted(good: int, count: int, what: str, doubts: Sequence[str]) -> str:
    return clip("; ".join([f"{good} of {count} {what}", *doubts]), 300)


def _no_passages(material: Material) -> str | None:
    return None if passages(material["context"]) else "the context is empty"


def _nothing_to_ground(material: Material) -> str | None:
    return "the answer is empty" if not str(material["answer"]).strip() else _no_passages(material)


def _nothing_to_recall(material: Material) -> str | None:
    return None if sentences(material["reference"]) else "the reference is empty"


def _no_answer(material: Material) -> str | None:
    return None if str(material["answer"]).strip() else "the answer is empty"


_REASON = '"reason": "<why, in one or two sentences>"'
_SHARE = (0.0, 1.0)
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "rubric",
            ("answer",),
            (1.0, 5.0),
            _from_menu(RUBRIC, "score"),
            f'{_REASON}, "score": <a whole number from 1, the worst, to 5, the best>',
            RUBRIC,
            "score",
        ),
        Kind(
            "binary",
            ("answer",),
            _SHARE,
            _from_menu(BINARY, "verdict"),
            f'{_REASON}, "verdict": <"pass" or "fail">',
            BINARY,
            default_pass_at=0.5,
        ),
        Kind(
            "pairwise",
            ("answer_a", "answer_b"),
            _SHARE,
            _from_menu(SIDES, "verdict"),
            f'{_REASON}, "verdict": <"A" when answer_a is better, "B" when answer_b is, "tie" when neither is>',
            SIDES,
        ),
        Kind(
            "groundedness",
            ("answer", "context"),
            _SHARE,
            _groundedness,
            '"claims": [{"claim": "<one factual claim of the answer>", "supported": <true or false: does the context '
            'say so?>, "quote": "<the words of the context that say so, copied exactly; empty when there are none>"}, '
            "<… and so on for every claim; an empty list when the answer claims nothing>]",
            empty=_nothing_to_ground,
        ),
        Kind(
            "context-relevance",
            ("question", "context"),
            _SHARE,
            _context_relevance,
            '"passages": [{"passage": <its number>, "relevant": <true or false: does it help to answer the '
            "question?>}, <… and so on for every numbered passage>]",
            numbered="context",
            empty=_no_passages,
        ),
        Kind(
            "context-precision",
            ("question", "context"),
            _SHARE,
            _context_precision,
            '"passages": [{"passage": <its number>, "relevant": <true or false: does it help to answer the '
            "question?>}, <… and so on for every numbered passage>]",
            numbered="context",
            empty=_no_passages,
        ),
        Kind(
            "context-recall",
            ("context", "reference"),
            _SHARE,
            _context_recall,
            '"sentences": [{"sentence": <its number in the reference>, "attributed": <true or false: does the context '
            'say so?>, "quote": "<the words of the context that say so, copied exactly; empty when there are none>"}, '
            "<… and so on for every numbered sentence>]",
            numbered="reference",
            empty=_nothing_to_recall,
        ),
        Kind(
            "answer-relevance",
            ("question", "answer"),
            _SHARE,
            _answer_relevance,
            '"statements": [{"statement": "<one statement of the answer>", "relevant": <true or false: does it bear on '
            "the question?>}, <… and so on for every statement; an empty list when the answer states nothing>]",
            empty=_no_answer,
        ),
    )
}
