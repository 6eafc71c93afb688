"""What an author may write into the front matter of prompt.md and into a tool's file: names, types and bounds."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from tidegate.core.artifact import OVERRIDABLE, Input, InputType
from tidegate.core.document import Strict
from tidegate.core.errors import nearest
from tidegate.prompts.values import complaint

MAX_WHOLE = (1 << 53) - 1
"""Whole numbers of JSON above this are not the same number on every machine."""


def _one_word(value: str) -> str:
    if re.search(r"\s", value):
        raise ValueError("a model is `provider/model` or the name of a route, without spaces")
    return value


Model = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_word)]


class Params(Strict):
    """Sampling parameters, in tidegate's names."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class InputSpec(Strict):
    """One declared variable; `question: string` is short for `question: {type: string}`."""

    type: InputType = "string"
    values: list[Annotated[str, Field(min_length=1)]] = []
    description: Annotated[str, Field(max_length=4_000)] = ""
    """For people; not part of the digest."""
    max_chars: Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None = None
    required: bool | None = None
    default: Any = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"type": data}
        if not isinstance(data, dict):
            raise ValueError("must be a type, such as `string`, or a mapping of type, values and max_chars")
        return data

    @field_validator("type", mode="before")
    @classmethod
    def _known_type(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in get_args(InputType):
            raise ValueError(f"{value!r} is not a type.{nearest(value, get_args(InputType))}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> InputSpec:
        if self.type == "enum" and not self.values:
            raise ValueError("an enum needs its `values: [...]`")
        if self.type != "enum" and self.values:
            raise ValueError(f"`values` belong to an enum, not to a {self.type}")
        if len(set(self.values)) != len(self.values):
            raise ValueError("`values` holds the same value twice")
        for limit in ("max_chars", "max_tokens"):
            if self.type not in ("string", "list", "object") and getattr(self, limit) is not None:
                raise ValueError(f"`{limit}` belongs to a string, a list or an object, not to a {self.type}")
        if self.required and self.default is not None:
            raise ValueError("what is required needs no `default`")
        if self.default is not None and (wrong := complaint(self.declared, self.default)):
            raise ValueError(f"its default {wrong}")
        return self

    @property
    def declared(self) -> Input:
        """The input as the artifact keeps it."""
        required = self.required is not False and self.default is None
        return Input(self.type, tuple(self.values), self.max_chars, self.max_tokens, required, self.default)


class FrontMatter(Strict):
    """The mapping between the `---` lines."""

    model: Model
    fallbacks: Annotated[list[Model], Field(max_length=16)] = []
    description: Annotated[str, Field(max_length=4_000)] = ""
    params: Params = Params()
    overridable: list[str] = []
    inputs: dict[str, InputSpec] = {}
    output: Any = "text"
    tools: Annotated[list[str], Field(max_length=128)] = []
    retrieval: dict[str, Any] | None = None

    @field_validator("overridable")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in OVERRIDABLE:
                raise ValueError(f"{name!r} can not be left to clients.{nearest(name, OVERRIDABLE)}")
        return sorted(set(value))

    @model_validator(mode="after")
    def _each_model_once(self) -> FrontMatter:
        for index, name in enumerate(self.fallbacks):
            if name in (self.model, *self.fallbacks[:index]):
                raise ValueError(f"the fallback {name!r} is tried before already")
        return self


class ToolFile(Strict):
    """The content of a tool file."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
