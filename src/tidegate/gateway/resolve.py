"""
From a call to a plan: which prompt version, which request, which targets.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from tidegate.core import chat, split
from tidegate.core.errors import InvalidRequest, NotFound, UnknownModel
from tidegate.core.keys import Access
from tidegate.core.ledger import Served
from tidegate.dialects.dialect import Dialect, Fields, Incoming, Wire
from tidegate.dialects.fields import OWN_KEYS, encode, read_fields, value
from tidegate.dialects.openai_chat.request import messages_out
from tidegate.gateway import prompt_call
from tidegate.gateway.call import parse_prompt_name
from tidegate.gateway.record import Record
from tidegate.ports import PromptSource, Random
from tidegate.prompts.images import without_data, without_images
from tidegate.prompts.render import render
from tidegate.telemetry.record import CallRow, SplitBy
from tidegate.upstream.targets import Path, Target, Targets

MAX_NAMES = 20
MAX_NAME = 80
MAX_KEPT_SYSTEM = 4 << 10
_UNPRINTABLE = re.compile(r"[^!-~]")


class Plan(msgspec.Struct, frozen=True):
    """What to send, where to, and what the answer must be."""

    client: Dialect
    incoming: Incoming
    path: Path
    served: Served | None = None
    prompted: chat.Request | None = None
    """What the prompt makes of the request; None for a call without one."""
    large: bool = False
    """Translating it would hold up the loop for longer than other calls may wait."""
    headers: Mapping[str, str] = {}
    """The client's."""
    losses: list[chat.Loss] = []
    """What the target last tried could not be told."""

    def wire(self, target: Target) -> Wire:
        """The dialect to speak with a target: the client's own where the target knows it."""
        return self.client if self.client in target.dialects else target.dialects[0]

    def body(self, target: Target) -> bytes:
        """
        The request for one target; bytes pass through where nothing makes them another request.

        Raises InvalidRequest when the target can not be told all of it and the route's policy is to reject that, or it
        is something that no policy drops.
        """
        wire, incoming = self.wire(target), self.incoming
        self.losses.clear()
        if self.prompted is None and wire is self.client:
            return self.client.same_body(incoming, model=target.model, native=target.native)
        request = self.client.request_in(incoming) if self.prompted is None else self.prompted
        body, losses = wire.request_out(request, model=target.model, stream=incoming.stream, native=target.native)
        lost = [*request.losses, *losses]
        if wire is self.client:
            extras = _extras(incoming, request)
            body = encode({**read_fields(body), **extras}) if extras else body
            lost = [loss for loss in lost if loss.field not in extras]
        self.losses.extend(lost)
        if essential := [loss for loss in lost if loss.essential]:
            raise InvalidRequest(
                f"{target.name} can not be told {names(essential)}: {essential[0].why}.", param=essential[0].field[:100]
            )
        if lost and self.path.unsupported == "reject":
            raise InvalidRequest(
                f"{target.name} can not be told {names(lost)}: {lost[0].why}. Leave it out or set `unsupported: warn`.",
                param=lost[0].field[:100],
            )
        return body


def _extras(incoming: Incoming, request: chat.Request) -> Fields:
    """What only this dialect knows (metadata, service tier …) comes through to a provider that speaks it."""
    unread = {loss.field for loss in request.losses} & incoming.fields.keys()
    return {key: incoming.fields[key] for key in incoming.fields if key in unread and key not in OWN_KEYS}


def names(losses: Sequence[chat.Loss]) -> str:
    """The fields of losses, fit for a header: what a client called them may hold anything."""
    fields = sorted({_UNPRINTABLE.sub("?", loss.field[:MAX_NAME]) for loss in losses})
    return ", ".join([*fields[:MAX_NAMES], *(["..."] if len(fields) > MAX_NAMES else [])])


async def resolve(
    client: Dialect,
    incoming: Incoming,
    record: Record,
    prompts: PromptSource,
    targets: Targets,
    *,
    access: Access,
    random: Random,
    headers: Mapping[str, str],
    large: bool = False,
) -> Plan:
    """
    Finds prompt and targets, renders, and writes both into the record.

    Raises: Forbidden for what `access` does not reach, whether there is such a thing or not; UnknownModel,
        InvalidRequest.
    """
    row = record.row
    row.streamed = incoming.stream
    row.request_model = incoming.model[:200]
    name = parse_prompt_name(incoming.model)
    if name is None:
        if incoming.variables is not None:
            raise InvalidRequest("variables belong to a prompt; call one as model prompt:NAME.", param="variables")
        access.require_model(incoming.model)
        try:
            path = targets.find(incoming.model)
        except UnknownModel:
            _say_prompt(incoming.model, prompts, access)
            raise
        row.route = path.route
        system = await asyncio.to_thread(client.system_bytes, incoming) if large else client.system_bytes(incoming)
        row.system_digest = _kept_digest(system) if len(system) <= MAX_KEPT_SYSTEM else _digest(system)
        record.input = without_data(client.input_text(incoming))
        return Plan(client, incoming, path, large=large, headers=headers)
    access.require_prompt(name.prompt)
    if client.operation != "chat":
        raise InvalidRequest(
            "a prompt asks a model to talk: to embed, or to count tokens, name a model.", param="model"
        )
    environment = name.selector or access.environment
    if row.origin == "live":
        access.require_environment(environment)
    row.prompt = name.prompt[:200]
    served = prompts.live(name.prompt, environment)
    if served is not None:
        row.environment = environment
    else:
        try:
            served = await prompts.find(name.prompt, environment)
        except NotFound as error:
            raise UnknownModel(str(error), param="model") from error
    if served.split is not None:
        row.split_by, caller = _caller(row, incoming)
        served = split.choose(served, environment, caller, random.uniform)
    row.version = served.version
    row.digest = served.digest
    artifact = served.artifact
    variables = incoming.variables or {}
    record.variables = without_images(variables)
    rendered = render(artifact, variables)
    asked = await asyncio.to_thread(client.request_in, incoming) if large else client.request_in(incoming)
    prompted = prompt_call.compose(artifact, rendered, incoming, asked)
    record.input = without_data(msgspec.json.encode(messages_out(prompted.messages)).decode())
    path = targets.find(artifact.model, artifact.fallbacks)
    if row.origin != "live":
        # An eval of one model must not be answered by another; that the fallbacks exist was checked all the same.
        path = targets.find(artifact.model)
    row.route = path.route
    row.request_model = artifact.model
    return Plan(client, incoming, path, served, prompted, large, headers)


def _say_prompt(model: str, prompts: PromptSource, access: Access) -> None:
    """Raises UnknownModel where a prompt is called by its name alone."""
    name = model.partition("@")[0]
    if name in prompts.names() and access.may_call(prompt=name):
        raise UnknownModel(f"{model!r} is a prompt: call it as 'prompt:{model}'.", param="model")


def _digest(system: bytes) -> str:
    return sha256(system).hexdigest()


_kept_digest = lru_cache(1_024)(_digest)
"""The same system prompts come again and again."""


class _Metadata(msgspec.Struct):
    """Anthropic's place for a user."""

    user_id: str | None = None


def _caller(row: CallRow, incoming: Incoming) -> tuple[SplitBy, str | None]:
    """Who stays on one side of a split: a user, else a session; nobody where the call names neither."""
    if row.user_id is not None:
        return "user", row.user_id
    if row.conversation_id is not None:
        return "conversation", row.conversation_id
    fields = incoming.fields
    for key in ("user", "safety_identifier"):
        if user := value(fields, key, str, "a string"):
            return "user", user
    metadata = value(fields, "metadata", _Metadata, "an object")
    return ("user", metadata.user_id) if metadata and metadata.user_id else ("draw", None)
