"""promptfoo's providers → a prompt's model, parameters, output and tools."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tidegate.core.artifact import Tool
from tidegate.prompts.importing import fields
from tidegate.prompts.importing.outcome import Items, Spot
from tidegate.prompts.importing.reading import Given, parse

_CHATS = ("chat", "messages", "responses")
_NOT_CHATS = (
    *("completion", "embedding", "embeddings", "image", "assistant", "realtime", "moderation", "transcription"),
    *("video", "speech", "agents", "chatkit", "codex-sdk", "codex-app-server"),
)
_CODE = re.compile(r"(?:exec|python|golang|ruby|package|webhook|mcp|browser|opencode):|file://|https?://|wss?://")
_PROVIDERS = {"azureopenai": "azure", "vertex": "vertex", "bedrock": "bedrock", "palm": "google"}
"""promptfoo's word → the one to use in tidegate.yaml, where they differ or a model's name holds a colon."""
_PARAMS = {
    "temperature": "temperature",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "max_output_tokens": "max_output_tokens",
    "maxOutputTokens": "max_output_tokens",
    "top_p": "top_p",
    "topP": "top_p",
    "stop": "stop",
    "stopSequences": "stop",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_IN_CONFIG = "addresses and credentials stand in tidegate.yaml, under `providers`; nothing of this was read."
_WHY_NOT = {
    **dict.fromkeys(("response_format", "tools"), ""),
    **dict.fromkeys(
        ("apiKey", "apiKeyEnvar", "apiHost", "apiBaseUrl", "organization", "headers", "basePath"), _IN_CONFIG
    ),
    **dict.fromkeys(("generationConfig", "passthrough"), "options of one provider have no place in a prompt here."),
    "functionToolCallbacks": "runs code: functions that answer tool calls.",
    "functions": "OpenAI's older form of `tools`: write them as tools.",
    "tool_choice": "whether a tool must be called is decided per call here.",
    "top_k": "not every provider knows it, so a prompt has no `top_k` here.",
    "cost": "prices stand in tidegate.yaml, under `prices`.",
}
_KEYS = {
    **dict.fromkeys(("id", "label", "config", "prompts"), ""),
    "transform": "runs code: it changes every answer before it is checked.",
    "delay": "rates are limited per key and model here, not by waiting.",
    "env": "the environment is not part of a prompt; nothing of this was read.",
    "inputs": "inputs of a target for generated attacks have no place here.",
}


@dataclass(frozen=True, slots=True)
class Model:
    """One provider as a prompt of ours has it."""

    id: str
    """`openai:chat:gpt-4.1`"""
    label: str
    name: str
    """`provider/model`."""
    params: dict[str, Any] = field(default_factory=dict)
    output: Literal["text", "json"] | dict[str, Any] = "text"
    tools: tuple[Tool, ...] = ()
    prompts: tuple[str, ...] | None = None
    """The labels of the prompts it is for; None: all."""

    @property
    def title(self) -> str:
        """What a folder is called by: the author's label, else the model alone."""
        return self.label if self.label not in ("", self.id) else self.name.rpartition("/")[2]

    def named(self, name: str) -> Model:
        return replace(self, name=name, prompts=None)

    def allows(self, prompt: str) -> bool:
        return self.prompts is None or any(matches(prompt, wanted) for wanted in self.prompts)

    def under(self, config: Spot) -> Model:
        """With a prompt's own config over the provider's."""
        own = _configured(self, config)
        return replace(own, params={**self.params, **own.params})


def matches(label: str, wanted: str) -> bool:
    """Whether a label is meant: itself, a pattern with `*`, or the group before its colon."""
    return label == wanted or label.startswith(f"{wanted}:") or ("*" in wanted and fnmatch.fnmatchcase(label, wanted))


def models(given: Given, spot: Spot, items: Items) -> list[Model]:
    """The models that `providers` names; what is none of ours becomes an item."""
    return [model for model in _each(given, spot, items) if model is not None]


def grader(spot: Spot) -> str | None:
    """`provider/model` of what a `provider` names that judges answers: an id, a mapping with one, or `text` of both."""
    value = spot.value
    if isinstance(value, dict):
        return grader(spot / "text") or grader(spot / "id")
    model = _named(spot, value) if isinstance(value, str) else None
    return None if model is None else model.name


def _each(given: Given, spot: Spot, items: Items) -> Iterator[Model | None]:
    value = spot.value
    if isinstance(value, list):
        for index in range(len(value)):
            yield from _each(given, spot / index, items)
    elif isinstance(value, str):
        if value.startswith("file://") and value.lower().endswith((".yaml", ".yml", ".json")):
            yield from _file(given, spot, items)
        else:
            yield _named(spot, value)
    elif isinstance(value, dict) and "id" in value:
        yield _object(given, spot)
    elif isinstance(value, dict):  # {"openai:gpt-4.1": {config: …}}
        for name in value:
            yield _object(given, spot / name, name)
    elif value is not None:
        spot.left_out("a provider is a text or a mapping.")


def _file(given: Given, spot: Spot, items: Items) -> Iterator[Model | None]:
    try:
        paths = given.beside(spot.value.removeprefix("file://"))
    except ValueError as error:
        fields.not_read(spot, error)
        return
    for path in paths:
        inner = Spot(parse(given.read(path), path), items)
        if isinstance(inner.value, str):
            inner.left_out("a provider's file holds a mapping, or a list of them.")
        else:
            yield from _each(given, inner, items)


def _object(given: Given, spot: Spot, name: str | None = None) -> Model | None:
    fields.unknown(spot, _KEYS)
    id_ = (spot / "id").value if name is None else (spot / "id").value or name
    model = _named(spot, id_) if isinstance(id_, str) else None
    if not isinstance(id_, str):
        spot.left_out("its `id` is a text.")
    if model is None:
        return None
    prompts = (spot / "prompts").value
    return replace(
        _configured(model, spot / "config", _tool_files(given, spot / "config" / "tools")),
        label=fields.text((spot / "label").value) or model.label,
        prompts=tuple(map(str, prompts)) if isinstance(prompts, list) else None,
    )


def _named(spot: Spot, id_: str) -> Model | None:
    """`openai:gpt-4.1`, `openai:chat:gpt-4.1`, `anthropic:messages:claude-…` as `provider/model`."""
    if _CODE.match(id_):
        spot.refused(f"runs code: {id_[:80]!r} is a program or an address of yours, not a model.")
        return None
    provider, _, rest = id_.partition(":")
    kind, _, model = rest.partition(":")
    if kind in _NOT_CHATS:
        spot.left_out(f"{id_[:80]!r} is not a chat model.")
        return None
    if kind not in _CHATS or not model:
        model = rest
    name = f"{_PROVIDERS.get(provider, provider)}/{model}"
    if not model or fields.model(name):
        spot.left_out(f"{id_[:80]!r} is not `provider:model`, so there is no model to name.")
        return None
    return Model(id_, id_, name)


def _tool_files(given: Given, spot: Spot) -> Spot:
    """The list of tools that stands in a file of its own; else what stands here."""
    name = spot.value
    if not isinstance(name, str) or not name.startswith("file://"):
        return spot
    try:
        path = given.beside(name.removeprefix("file://"))[0]
    except ValueError as error:
        fields.not_read(spot, error)
        return spot / "none"
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        spot.refused(f"runs code, or is no list of tools: {path.name!r}.")
        return spot / "none"
    return Spot(parse(given.read(path), path), spot.items)


def _configured(model: Model, spot: Spot, given: Spot | None = None) -> Model:
    """`given`: the tools, where they stand elsewhere."""
    params = fields.params(spot, _PARAMS, _WHY_NOT)
    output = _output(spot / "response_format")
    tools: list[Tool] = []
    given = spot / "tools" if given is None else given
    if isinstance(given.value, list):
        for index in range(len(given.value)):
            _tool(given / index, tools)
    elif given.value is not None:
        given.left_out("tools are a list here, or a file that holds one.")
    return replace(model, params=params, output=output or model.output, tools=tuple(tools) or model.tools)


def _tool(spot: Spot, tools: list[Tool]) -> None:
    """A function as OpenAI (`{type: function, function: {…}}`) or Anthropic (`{name, input_schema}`) spells it."""
    value = spot.value
    if not isinstance(value, dict) or value.get("type", "function") not in ("function", "custom"):
        spot.left_out("a tool is a function here.")
        return
    inner = spot / "function" if isinstance(value.get("function"), dict) else spot
    schema = (inner / "parameters").value or (inner / "input_schema").value or {}
    about = {"strict": "whether a provider is asked to keep to a schema is not a tool's to say here."}
    fields.unknown(inner, {**dict.fromkeys(("type", "name", "description", "parameters", "input_schema"), ""), **about})
    name = fields.text((inner / "name").value)
    fields.add_tool(spot, Tool(name, fields.text((inner / "description").value), schema), tools)


def _output(spot: Spot) -> Any:
    value = spot.value
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("json_object", "text"):
        return "json" if kind == "json_object" else "text"
    schema = (spot / "json_schema" / "schema").value or (spot / "schema").value
    complaint = (
        fields.schema_complaint(schema) if kind == "json_schema" else "must be json_object, json_schema or text."
    )
    if complaint:
        spot.left_out(complaint)
        return None
    return schema
