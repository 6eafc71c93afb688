"""Calls: the list that a filter leaves, and everything that is known of one call."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from tidegate.console import format as human
from tidegate.console.next_step import first_call
from tidegate.console.page import Pages, parse_instant
from tidegate.console.spoken import Piece, data, spoken, written
from tidegate.core.errors import BadInput, NotFound, nearest
from tidegate.prompts.registry import Registry
from tidegate.telemetry.find import CallFilter, CallPage, facets, find_calls, previews
from tidegate.telemetry.queries import CallLog
from tidegate.telemetry.record import Origin, Outcome
from tidegate.telemetry.snapshot import Snapshot

PAGE = 50
ORIGINS: tuple[str, ...] = Origin.__args__  # type: ignore[attr-defined]  # a Literal knows its values at run time
OUTCOMES: tuple[str, ...] = Outcome.__args__  # type: ignore[attr-defined]
VALID = {"": None, "yes": True, "no": False}
LAST_DAY = timedelta(days=1)


class Select(msgspec.Struct, frozen=True):
    """One drop-down of the filter form."""

    name: str
    label: str
    value: str
    options: list[tuple[str, str]]
    default: str = ""


class CallQuery(BaseModel):
    """A filter as an address writes it; an empty text means any."""

    prompt: str = ""
    version: str = ""
    model: str = ""
    outcome: str = ""
    valid: str = ""
    origin: str = "live"
    service: str = ""
    q: str = Field(default="", max_length=200)
    since: str = Field(default="", alias="from")
    until: str = Field(default="", alias="to")
    before: str = ""

    def wanted(self) -> CallFilter:
        """The filter. Raises BadInput for a value that can not be one."""
        if self.outcome and self.outcome not in OUTCOMES:
            raise BadInput(f"outcome: {self.outcome!r} is none.{nearest(self.outcome, OUTCOMES)}")
        if self.origin not in (*ORIGINS, "all", ""):
            raise BadInput(f"origin: {self.origin!r} is none.{nearest(self.origin, ORIGINS)}")
        if self.valid not in VALID:
            raise BadInput(f"valid: {self.valid!r} is neither yes nor no.")
        number = self.version.removeprefix("v")
        if self.version and not (number.isascii() and number.isdigit() and len(number) < 10):
            raise BadInput(f"version: {self.version!r} is not a version such as v3.")
        return CallFilter(
            prompt=self.prompt or None,
            version=int(number) if number else None,
            model=self.model or None,
            outcome=self.outcome or None,
            valid=VALID[self.valid],
            origin=None if self.origin in ("all", "") else self.origin,
            service=self.service or None,
            text=self.q.strip() or None,
            since=parse_instant("from", self.since) if self.since else None,
            until=parse_instant("to", self.until) if self.until else None,
        )


class CallPages:
    """The list, its previews and the detail page."""

    def __init__(self, pages: Pages, registry: Registry, call_log: CallLog) -> None:
        self._pages = pages
        self._registry = registry
        self._call_log = call_log

    def routes(self) -> APIRouter:
        routes = APIRouter(include_in_schema=False)
        routes.add_api_route("/calls", self.index)
        routes.add_api_route("/calls/previews", self.previews)
        routes.add_api_route("/calls/{call_id}", self.detail)
        return routes

    def index(self, request: Request, query: Annotated[CallQuery, Query()]) -> Response:
        wanted = query.wanted()
        now = self._pages.now()
        with self._call_log.snapshot(now - LAST_DAY) as recent:
            known = facets(recent, now - LAST_DAY)
            page = search(self._call_log, recent, now, wanted, limit=PAGE, before=query.before or None)
        return self._pages.answer(
            request,
            "calls.html",
            {
                "calls": page.calls,
                "older": page.older,
                "oldest": page.calls[-1]["start"] if page.calls else None,
                "before": query.before,
                "wanted": wanted,
                "filtered": wanted != CallFilter(),
                "selects": _selects(wanted, known, query.valid),
                "span": _span(self._pages, wanted),
                "next_step": first_call(self._pages.project, self._registry),
            },
            active="calls",
            title="Calls",
        )

    def previews(
        self, ids: Annotated[list[str], Query(alias="id", max_length=PAGE)], since: Annotated[str, Query(alias="from")]
    ) -> dict[str, dict[str, str]]:
        oldest = parse_instant("from", since)
        with self._call_log.snapshot(oldest) as rows:
            return {"previews": previews(rows, ids, oldest)}

    def detail(self, request: Request, call_id: str) -> Response:
        call = self._call_log.call(call_id)
        if call is None:
            raise NotFound(f"There is no call {call_id!r}: it may be older than what is kept, or of another project.")
        content = call.get("content") or {}
        return self._pages.answer(
            request,
            "call.html",
            {
                "call": call,
                "messages": spoken(content.get("input")),
                "output": written(content["output"]) if content.get("output") else None,
                "kept": bool(content),
                "explained": _explained(call),
                "variables": _variables(content.get("variables")),
                "attempts": _attempts(call),
                "facts": _facts(call),
            },
            active="calls",
            title=f"Call {call_id}",
        )


def search(
    call_log: CallLog, recent: Snapshot, now: datetime, wanted: CallFilter, *, limit: int, before: str | None = None
) -> CallPage:
    """
    A page of calls.

    Args:
        recent: the calls since `now - LAST_DAY`. It is looked at first: most pages end there, and it is a few files.
    """
    since = now - LAST_DAY
    if wanted.since is not None and wanted.since >= since:
        return find_calls(recent, wanted, limit=limit, before=before)
    if wanted.since is None and before is None:
        page = find_calls(recent, replace(wanted, since=since), limit=limit)
        if len(page.calls) == limit:
            return page
    with call_log.snapshot(wanted.since) as rows:
        return find_calls(rows, wanted, limit=limit, before=before)


def _selects(wanted: CallFilter, known: dict[str, list[Any]], valid: str) -> list[Select]:
    def options(values: list[Any], chosen: Any, any_: str, show: str = "{}") -> list[tuple[str, str]]:
        offered = values if chosen is None or chosen in values else [*values, chosen]
        return [("", any_), *((str(value), show.format(value)) for value in offered)]

    version = "" if wanted.version is None else str(wanted.version)
    return [
        Select("prompt", "Prompt", wanted.prompt or "", options(known["prompts"], wanted.prompt, "any prompt")),
        Select("version", "Version", version, options(known["versions"], wanted.version, "any version", "v{}")),
        Select("model", "Model", wanted.model or "", options(known["models"], wanted.model, "any model")),
        Select(
            "outcome",
            "Outcome",
            wanted.outcome or "",
            [("", "any outcome"), *((outcome, outcome.replace("_", " ")) for outcome in OUTCOMES)],
        ),
        Select("valid", "Output", valid, [("", "any output"), ("yes", "valid output"), ("no", "invalid output")]),
        Select(
            "origin",
            "Origin",
            wanted.origin or "all",
            [("all", "any origin"), *((origin, f"{origin} traffic") for origin in ORIGINS)],
            default="live",
        ),
    ]


def _span(pages: Pages, wanted: CallFilter) -> str:
    if wanted.since is None and wanted.until is None:
        return ""
    ends = (wanted.since, wanted.until)
    begin, end = (human.local(moment, pages.zone, pages.now()) if moment else "…" for moment in ends)
    return f"{begin} – {end}"


def _variables(value: Any) -> list[tuple[str, Piece]]:
    if isinstance(value, str):
        value = msgspec.json.decode(value)
    return [(str(name), data(item)) for name, item in value.items()] if isinstance(value, dict) else []


def _attempts(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The attempts one after another, each with its place in the call's whole time."""
    attempts = call.get("attempts") or []
    whole = max(call["latency_s"], sum(attempt["latency_s"] for attempt in attempts)) or 1.0
    placed, offset = [], 0.0
    for attempt in attempts:
        share = attempt["latency_s"] / whole
        placed.append(
            {
                "target": attempt["target"],
                "latency_s": attempt["latency_s"],
                "status": attempt.get("status"),
                "error_type": attempt.get("error_type"),
                "failed": bool(attempt.get("error_type")) or (attempt.get("status") or 200) >= 400,
                "offset": offset,
                "share": max(share, 0.01),
            }
        )
        offset += share
    return placed


def _facts(call: dict[str, Any]) -> list[tuple[str, str]]:
    requested, served = call["request_model"], call["response_model"]
    cached, stored = call["cache_read_input_tokens"], call["cache_write_input_tokens"]
    heard, said = call["audio_input_tokens"], call["audio_output_tokens"]
    saved, split = call["saved_cost_nano_usd"], call["split_by"]
    facts = [
        ("Latency", human.duration(call["latency_s"]) if call["outcome"] != "lost" else ""),
        ("First chunk", human.duration(call["time_to_first_chunk_s"]) if call["streamed"] else ""),
        ("Cost", human.usd(call["cost_nano_usd"])),
        ("Saved by the cache", human.usd(saved) if saved else ""),
        ("Input tokens", human.count(call["input_tokens"]) + (f" ({human.count(cached)} cached)" if cached else "")),
        ("Written to cache", human.count(stored) if stored else ""),
        ("Output tokens", human.count(call["output_tokens"])),
        ("Reasoning tokens", human.count(call["reasoning_output_tokens"]) if call["reasoning_output_tokens"] else ""),
        ("Audio tokens", f"{human.count(heard)} in, {human.count(said)} out" if heard or said else ""),
        ("Usage", "" if call["usage_source"] in (None, "provider") else call["usage_source"]),
        ("Provider", call["provider"] or ""),
        ("Model", served or requested or ""),
        ("Asked for", requested if served and requested and requested != served else ""),
        ("Finish reason", call["finish_reason"] or ""),
        ("Service tier", call["service_tier"] or ""),
        ("Streamed", "yes" if call["streamed"] else "no"),
        ("Answer cache", call["cache"] or ""),
        ("Environment", call["environment"] or ""),
        ("Split by", split or ""),
        ("Route", call["route"] or ""),
        ("Key", f"{call['key']} ({call['key_prefix']}…)" if call["key"] and call["key_prefix"] else call["key"] or ""),
        ("Service", call["service"] or ""),
        ("Conversation", call["conversation_id"] or ""),
        ("User", call["user_id"] or ""),
        ("Operation", "" if call["operation"] == "chat" else call["operation"]),
        ("Dialect", call["dialect"]),
    ]
    facts += [(f"Tag {name}", value) for name, value in (call.get("tags") or {}).items()]
    return [(name, value) for name, value in facts if value]


def _explained(call: dict[str, Any]) -> tuple[str, str, str] | None:
    """Tone, headline and sentence where a call did not go as it should."""
    if call["outcome"] == "lost":
        return (
            "bad",
            "The gateway died while this call ran",
            "Nobody knows whether a provider answered, or what it cost. Its budget was charged what it had reserved.",
        )
    if call["error_message"] or call["error_type"]:
        tone = "warn" if call["outcome"] in ("rejected", "client_closed") else "bad"
        return tone, call["error_type"] or "error", call["error_message"] or ""
    if call["outcome"] == "client_closed":
        return "warn", "The client left before the answer was whole", ""
    return None
