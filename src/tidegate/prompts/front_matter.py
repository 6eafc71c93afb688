"""What an author may write into the front matter of prompt.md and into a tool's file: names, types and bounds."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import Field, field_validator, model_validator

from tidegate.core.artifact import InputType
from tidegate.core.document import Strict
from tidegate.core.errors import nearest

MAX_WHOLE = (1 << 53) - 1
"""Whole numbers of JSON above this are not the same number on every machine."""


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
    max_chars: Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None = None

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
        if self.type != "string" and self.max_chars is not None:
            raise ValueError(f"`max_chars` belongs to a string, not to a {self.type}")
        return self


class FrontMatter(Strict):
    """The mapping between the `---` lines."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=4_000)] = ""
    params: Params = Params()
    inputs: dict[str, InputSpec] = {}
    output: Any = "text"
    tools: Annotated[list[str], Field(max_length=128)] = []
    retrieval: dict[str, Any] | None = None

    @field_validator("model")
    @classmethod
    def _one_word(cls, value: str) -> str:
        if re.search(r"\s", value):
            raise ValueError("a model is `provider/model` or the name of a route, without spaces")
        return value


class ToolFile(Strict):
    """The content of a tool file."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
