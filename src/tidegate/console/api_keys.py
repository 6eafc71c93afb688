"""The admin API's keys, for admins: made, listed, revoked."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from tidegate.console.access import Asking, who
from tidegate.console.api import Body
from tidegate.console.json_answer import json_answer
from tidegate.core.keys import Key, Names, Role, Wanted
from tidegate.prompts.registry import Registry


class NewKey(Body):
    """A key to be made. An empty list would allow nothing, and is refused; null allows everything."""

    name: str
    role: Role
    prompts: Names | None = None
    models: Names | None = None
    environments: Names | None = None
    expires_at: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


class Revocation(Body):
    """A key to be revoked, by name or prefix."""

    key: str


class KeysApi:
    """The answers hold no hash; the key itself stands in the answer that makes it, and nowhere again."""

    def __init__(self, registry: Registry) -> None:
        self._book = registry.keys

    def routes(self) -> APIRouter:
        routes = APIRouter(prefix="/api/v1")
        routes.add_api_route("/keys", self.all, summary="Every key that was ever made, oldest first")
        post: dict[str, Any] = {"methods": ["POST"], "status_code": 201}
        routes.add_api_route("/keys", self.create, summary="Make a key; it is shown this once", **post)
        routes.add_api_route("/keys/revocations", self.revoke, summary="Revoke a key", **post)
        return routes

    def all(self) -> Response:
        return json_answer([_shown(key) for key in self._book.all()])

    def create(self, new: NewKey, access: Asking) -> Response:
        token, key = self._book.create(Wanted(**new.model_dump()), who=who(access))
        return json_answer({"token": token, "key": _shown(key)}, 201)

    def revoke(self, revocation: Revocation, access: Asking) -> Response:
        return json_answer(_shown(self._book.revoke(revocation.key, who=who(access))), 201)


def _shown(key: Key) -> Key:
    return msgspec.structs.replace(key, sha256="")
