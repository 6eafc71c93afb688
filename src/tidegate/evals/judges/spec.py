"""
`judges:` of eval.yaml → JudgeSpec: who judges what, how often, and what passes.

    judges:
      grounded: {groundedness: judges/claims, pass_at: 0.9}
      tone:     {rubric: [judges/tone, judges/tone-strict], votes: 3, reduce: majority, pass_at: 4}

A judge is named by its kind (kinds.py) and the prompts under `judges/` that do it; several are a jury. What the
prompts' inputs hold is found by paths: `question` is `inputs.question`, `context` is `inputs.context`, `reference` is
`expected.answer`, `answer` is `output`, unless `fields:` says otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import Field

from tidegate.core.artifact import Artifact
from tidegate.core.artifact import digest as digest_of
from tidegate.core.document import Document, Strict
from tidegate.core.errors import BadInput, InvalidFile, NotFound, Problem, nearest
from tidegate.evals.judges.asking import FORMAT
from tidegate.evals.judges.kinds import KINDS, Kind, NotApplicable
from tidegate.prompts.files import JUDGES, PromptFile, load_prompt

MIN_KAPPA = 0.6
"""The least agreement with people, at the lower end of its interval, with which a judge may gate: 0.6 and more is
"substantial" to Landis and Koch, Biometrics 33 (1977) 159-174."""
FIELDS = {
    "question": "inputs.question",
    "context": "inputs.context",
    "reference": "expected.answer",
    "rubric": "expected.rubric",
    "answer": "output",
    "answer_a": "output",
    "answer_b": "rival",
}
"""Input of a judge's prompt → where its value is found."""
ROOTS = ("inputs", "expected", "output", "trajectory", "rival")
Reduce = Literal["mean", "majority"]


Prompts = str | list[str] | None


class JudgeFile(Strict):
    """One entry of `judges:` as its author writes it: one kind with its prompts, and how they are asked."""

    rubric: Prompts = None
    binary: Prompts = None
    pairwise: Prompts = None
    groundedness: Prompts = None
    context_relevance: Prompts = Field(None, alias="context-relevance")
    context_precision: Prompts = Field(None, alias="context-precision")
    context_recall: Prompts = Field(None, alias="context-recall")
    answer_relevance: Prompts = Field(None, alias="answer-relevance")
    pass_at: float | None = None
    votes: Annotated[int, Field(ge=1, le=15)] = 1
    reduce: Reduce | None = None
    fields: dict[str, str] = {}
    min_kappa: Annotated[float, Field(ge=0, le=1)] = MIN_KAPPA
    logprobs: bool = True

    @property
    def named(self) -> dict[str, str | list[str]]:
        """The kinds it names, with their prompts; one of them, when it is right."""
        written = {name: getattr(self, name.replace("-", "_")) for name in KINDS}
        return {name: prompts for name, prompts in written.items() if prompts is not None}

    @property
    def kind(self) -> str | None:
        """The first kind it names."""
        return next(iter(self.named), None)


@dataclass(frozen=True, slots=True)
class Juror:
    """One prompt that judges."""

    name: str
    """`judges/grounded`: its name in the registry."""
    artifact: Artifact
    digest: str
    file: PromptFile


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """One judge of a suite."""

    name: str
    kind: Kind
    jurors: tuple[Juror, ...]
    pass_at: float | None
    votes: int
    reduce: Reduce
    fields: Mapping[str, str]
    """Of every input of its prompts."""
    min_kappa: float
    logprobs: bool
    digest: str
    """Of all that decides its scores. How it is held against people (`pass_at`, `min_kappa`) is outside it."""
    text: str
    """The canonical JSON that the digest is of."""
    plain: Mapping[str, Any]
    """What a suite's digest covers."""
    gates: str | None
    """The sentence that says why it may not gate; None when it may."""

    @property
    def scale(self) -> tuple[float, float]:
        return self.kind.scale

    @property
    def passing(self) -> float | None:
        """From which score on it passes; None: it only scores."""
        return self.kind.default_pass_at if self.pass_at is None else self.pass_at

    @property
    def relative(self) -> bool:
        """Whether it compares with the baseline's answer: the baseline itself then is at 0.5, by definition."""
        return self.kind.name == "pairwise"

    def material(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        What is judged, by input of its prompts, from `{inputs, expected, output, rival}`.

        Raises: NotApplicable when a value that is needed is not there, or empty where that can not be judged.
        """
        found = {}
        for name, path in self.fields.items():
            value = look_up(path, values)
            if value is None and name in self.needed:
                raise NotApplicable("there is no answer to compare with" if path == "rival" else f"there is no {path}")
            if value is not None:
                found[name] = value
        if reason := self.kind.empty(found):
            raise NotApplicable(reason)
        return found

    @property
    def needed(self) -> frozenset[str]:
        """The inputs that no judgement can do without."""
        declared = (juror.artifact.inputs for juror in self.jurors)
        return frozenset(self.kind.needs) | {
            name for inputs in declared for name, one in inputs.items() if one.required
        }


def look_up(path: str, values: Mapping[str, Any]) -> Any:
    """
    The value at `inputs.a.b`; None where there is none.

    `output.answer` is that member of an output that is a JSON object, and the whole of every other output.
    """
    root, *keys = path.split(".")
    value = values.get(root)
    if root in ("output", "rival") and keys and isinstance(value, str):
        try:
            inside = _inside(json.loads(value), keys)
        except (ValueError, RecursionError):
            inside = None
        return value if inside is None else inside
    return _inside(value, keys)


def read_judges(
    written: Mapping[str, JudgeFile], folder: Path, document: Document
) -> tuple[tuple[JudgeSpec, ...], list[Problem]]:
    """The judges of a suite whose prompt stands in `folder`, and every problem found, each on its line."""
    specs: list[JudgeSpec] = []
    problems: list[Problem] = []
    for name, file in written.items():
        try:
            specs.append(_Reader(name, file, folder, document).spec())
        except InvalidFile as error:
            problems += error.problems
    return tuple(specs), problems


def judges_root(folder: Path) -> Path | None:
    """The folder `prompts/` of the nearest project upwards from a prompt's folder that has judges."""
    for above in folder.absolute().parents:
        if above.name == "prompts" and (above.parent / JUDGES).is_dir():
            return above
    return None


def uncalibrated(name: str) -> str:
    """Why a judge of which nothing is known may not gate."""
    return (
        f"the judge {name!r} is not calibrated: label answers and run `tidegate judge calibrate {name} --labels FILE`."
    )


class _Reader:
    """Reads one entry of `judges:`."""

    def __init__(self, name: str, file: JudgeFile, folder: Path, document: Document) -> None:
        self.name = name
        self.file = file
        self.folder = folder
        self.document = document

    def spec(self) -> JudgeSpec:
        kind, prompts = self._kind()
        file = self.file
        jurors = self._jurors(kind, prompts)
        fields = self._fields(jurors)
        low, high = kind.scale
        if file.pass_at is not None and not low <= file.pass_at <= high:
            raise self._invalid(f"is outside of this kind's scale, {low:g} to {high:g}.", "pass_at")
        reduce = file.reduce or ("majority" if kind.name in ("binary", "pairwise") else "mean")
        decides: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind.name,
            "prompts": [juror.digest for juror in jurors],
            "votes": file.votes,
            "reduce": reduce,
            "logprobs": file.logprobs,
        }
        text = rfc8785.dumps(decides).decode()
        return JudgeSpec(
            name=self.name,
            kind=kind,
            jurors=jurors,
            pass_at=file.pass_at,
            votes=file.votes,
            reduce=reduce,
            fields=fields,
            min_kappa=file.min_kappa,
            logprobs=file.logprobs,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            text=text,
            plain={**decides, "fields": fields, "pass_at": file.pass_at, "min_kappa": file.min_kappa},
            gates=uncalibrated(self.name),
        )

    def _kind(self) -> tuple[Kind, list[str]]:
        named = self.file.named
        if len(named) != 1:
            raise self._invalid(f"names {'no' if not named else 'more than one'} kind: {', '.join(KINDS)}.")
        name, written = next(iter(named.items()))
        kind = KINDS[name]
        prompts = [written] if isinstance(written, str) else written
        if not prompts:
            raise self._invalid(f"names no prompt, such as {JUDGES}/{self.name}.", kind.name)
        if len(set(prompts)) != len(prompts):
            raise self._invalid("names a prompt twice; `votes` asks one several times.", kind.name)
        return kind, prompts

    def _jurors(self, kind: Kind, prompts: Sequence[str]) -> tuple[Juror, ...]:
        jurors = []
        for name in prompts:
            if not name.startswith(f"{JUDGES}/"):
                raise self._invalid(f"{name!r} is no judge; judges stand under {JUDGES}/, beside prompts/.", kind.name)
            root = judges_root(self.folder)
            if root is None:
                raise self._invalid(
                    f"there is no folder {JUDGES}/ beside prompts/, so there is no {name!r}.", kind.name
                )
            try:
                file = load_prompt(root, name)
            except (BadInput, NotFound) as error:
                raise self._invalid(str(error), kind.name) from error
            for needed in kind.needs:
                if needed not in file.artifact.inputs:
                    message = f"a {kind.name} judge needs the input {needed!r}: add it, and show it in a message."
                    raise InvalidFile([file.front.problem(("inputs",), message)])
            jurors.append(Juror(name, file.artifact, digest_of(file.artifact), file))
        return tuple(jurors)

    def _fields(self, jurors: Sequence[Juror]) -> dict[str, str]:
        file = self.file
        fields: dict[str, str] = {}
        for juror in jurors:
            for name, declared in juror.artifact.inputs.items():
                path = file.fields.get(name) or FIELDS.get(name)
                if path is None:
                    message = f"{juror.name} has the input {name!r}: say where it is found, such as inputs.{name}."
                    raise self._invalid(message, "fields")
                if path.split(".")[0] not in ROOTS or "" in path.split("."):
                    message = f"{path!r} is no path; it begins with {', '.join(ROOTS[:-1])}, such as inputs.{name}."
                    raise self._invalid(message, "fields", name)
                if declared.type != "string":
                    message = f"an input of a judge is a string: judged texts are shown to it as text ({name!r})."
                    raise InvalidFile([juror.file.front.problem(("inputs", name), message)])
                fields[name] = path
        for name in file.fields:
            if name not in fields:
                raise self._invalid(
                    f"no prompt of this judge has such an input.{nearest(name, fields)}", "fields", name
                )
        return fields

    def _invalid(self, message: str, *at: str) -> InvalidFile:
        return InvalidFile([self.document.problem(("judges", self.name, *at), message)])


def _inside(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
