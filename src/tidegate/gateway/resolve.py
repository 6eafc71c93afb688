"""
From a call to a plan: which prompt version, which messages, which targets.

The artifact wins: a prompt's params, tools, format and system messages are not the client's to send.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tidegate.core.errors import NotFound, UnknownModel
from tidegate.core.ledger import Served
from tidegate.dialects import openai_chat
from tidegate.dialects.openai_chat import ChatRequest, Fields
from tidegate.gateway.call import parse_prompt_name
from tidegate.gateway.record import Record
from tidegate.ports import PromptSource
from tidegate.prompts.images import without_data, without_images
from tidegate.prompts.render import render
from tidegate.upstream.targets import Path, Targets

DEFAULT_ENVIRONMENT = "production"
SYSTEM_KEYS = (
    "tools",
    "temperature",
    "top_p",
    "response_format",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, where to, and what the answer must be."""

    request: ChatRequest
    fields: Fields
    path: Path
    served: Served | None


async def resolve(request: ChatRequest, record: Record, prompts: PromptSource, targets: Targets) -> Plan:
    """Finds prompt and targets, renders, and writes both into the record. Raises UnknownModel, InvalidRequest."""
    row = record.row
    row.streamed = request.stream
    row.request_model = request.model[:200]
    name = parse_prompt_name(request.model)
    if name is None:
        path = targets.find(request.model)
        row.route = path.route
        row.system_digest = system_digest(request.fields)
        record.input = without_data(openai_chat.messages_text(request.fields))
        return Plan(request, request.fields, path, None)
    environment = name.selector or DEFAULT_ENVIRONMENT
    row.prompt = name.prompt[:200]
    served = prompts.live(name.prompt, environment)
    if served is not None:
        row.environment = environment
    else:
        try:
            served = await prompts.find(name.prompt, environment)
        except NotFound as error:
            raise UnknownModel(str(error), param="model") from error
    row.version = served.version
    row.digest = served.digest
    artifact = served.artifact
    variables = request.variables or {}
    record.variables = without_images(variables)
    fields = openai_chat.from_artifact(artifact, render(artifact, variables), request)
    record.input = without_data(openai_chat.messages_text(fields))
    path = targets.find(artifact.model, artifact.fallbacks)
    if row.origin != "live":
        # An eval of one model must not be answered by another; that the fallbacks exist was checked all the same.
        path = targets.find(artifact.model)
    row.route = path.route
    row.request_model = artifact.model
    return Plan(request, fields, path, served)


def system_digest(fields: Fields) -> str:
    """sha256 over what shapes an answer besides the conversation, so that calls without a prompt can be told apart."""
    seen = hashlib.sha256()
    for key in SYSTEM_KEYS:
        if key in fields:
            seen.update(key.encode() + b"=" + bytes(fields[key]) + b"\n")
    for message in openai_chat.system_messages(fields):
        seen.update(message)
    return seen.hexdigest()
