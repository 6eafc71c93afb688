"""The call log of another machine: the same questions, over the API of its console."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from tidegate.core.errors import NotFound
from tidegate.core.table import Table
from tidegate.telemetry.find import ServedBy
from tidegate.upstream.server import Server, quoted

MAX_ROWS = 10_000


class RemoteCallLog:
    """Answers as CallLog does. Values of SQL are JSON's: an instant is a text."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def sql(self, text: str, *, limit: int = MAX_ROWS) -> Table:
        """As CallLog.sql."""
        return self._server.write(Table, "/sql", msgspec.json.encode({"query": text, "limit": limit}))

    def calls(self, where: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """As CallLog.calls."""
        return self._server.read(list[dict[str, Any]], "/records", where=where, limit=limit)

    def call(self, call_id: str) -> dict[str, Any] | None:
        """As CallLog.call."""
        try:
            return self._server.read(dict[str, Any], f"/calls/{quoted(call_id)}")
        except NotFound:
            return None

    def served_by(self, since: datetime, prompt: str | None = None) -> list[ServedBy]:
        """As CallLog.served_by."""
        instant = since.astimezone(UTC).isoformat()
        return self._server.read(list[ServedBy], "/traffic", since=instant, prompt=prompt)
