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
    """How freely the model chooses; 0 is the most likely word each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of probability it chooses from."""
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """A call may lower it, and never raise it."""
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=16)] | None = None
    """One text, or a list of them."""
    seed: Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)] | None = None
    """For providers that can repeat an answer, as well as they can."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Against words that were used before."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Against words by how often they were used."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class InputSpec(Strict):
    """One declared variable; `question: string` is short for `question: {type: string}`."""

    type: InputType = "string"
    """An image is an `https://` address, or a `data:` URI of a PNG, JPEG, WebP or GIF in base64."""
    values: list[Annotated[str, Field(min_length=1)]] = []
    """What an `enum` may be."""
    description: Annotated[str, Field(max_length=4_000)] = ""
    """For people; not part of the digest."""
    max_chars: Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None = None
    """Of a string; of a list or an object as JSON."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None = None
    """Likewise in tokens, estimated as one per four characters: a bound on size, not a provider's count."""
    required: bool | None = None
    """`false`: a call may leave it out, or send null; without a default it is empty then, and false in an `if`."""
    default: Any = None
    """Its value when a call leaves it out; an input with a default is not required."""

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
    """The mapping between the `---` lines of `prompt.md`. All of it but descriptions is part of the digest."""

    model: Model
    """`provider/model`, or the name of a route."""
    fallbacks: Annotated[list[Model], Field(max_length=16)] = []
    """Tried after `model`, in order, by live calls."""
    description: Annotated[str, Field(max_length=4_000)] = ""
    """For people; not part of the digest."""
    params: Params = Params()
    """What is not set is left to the provider."""
    overridable: list[str] = []
    """What a call may decide for itself: names of `params`, `tools`, `tool_choice`, `response_format`, `system` …"""
    inputs: dict[str, InputSpec] = {}
    """The variables of the messages; a message can use no others."""
    output: Any = "text"
    """`text`, `json`, or `{schema: FILE}`: every answer is validated. `constrain: true` sends the schema along, too."""
    tools: Annotated[list[str], Field(max_length=128)] = []
    """Files of the folder, each one function: `{name, description, parameters}`, where parameters is a JSON Schema."""
    retrieval: dict[str, Any] | None = None
    """Anything: versioned with the prompt, and served to your application as it is."""

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
