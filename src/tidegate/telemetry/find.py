"""
The SQL behind the list of calls: filters that fit into an address, newest first, a cursor instead of page numbers.

A list never reads content: previews are asked for by id, for the rows in sight, cut to 200 characters by the query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tidegate.core.errors import BadInput
from tidegate.core.ledger import Pointer

PREVIEW_CHARS = 200
SETTLE = timedelta(seconds=2)
"""Calls that began this shortly after a move may still have been served by the version before."""
MANY_CALLS = 50
"""Where each call draws, the odds that a version gets none of so many expected ones are 1 in 10²¹."""


class Rows(Protocol):
    """What this module needs of the call log."""

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class CallFilter:
    """What to look for; None means any."""

    prompt: str | None = None
    version: int | None = None
    model: str | None = None
    outcome: str | None = None
    valid: bool | None = None
    origin: str | None = "live"
    service: str | None = None
    text: str | None = None
    """In the id, the error or the reason why an output is invalid; upper and lower case are the same."""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class CallPage:
    """One page of calls, newest first, and where the next, older one begins."""

    calls: list[dict[str, Any]]
    older: str | None
    """Cursor of the next page; None on the last one."""


def find_calls(log: Rows, wanted: CallFilter, *, limit: int = 50, before: str | None = None) -> CallPage:
    """
    Args:
        before: the `older` of the page before. Raises BadInput when it is not one.
    """
    start, call_id = _cursor(before) if before else (None, None)
    params = asdict(wanted) | {"before_start": start, "before_id": call_id, "more": limit + 1}
    found = log.rows(FIND, params)
    if not found:
        return CallPage([], None)
    # Which they are is asked first: a search then reads the few columns it searches, not all, of all calls.
    ends = {"oldest": found[-1]["start"], "newest": found[0]["start"]}
    rows = log.rows(READ, ends | {"ids": [row["id"] for row in found]})
    for row in rows:
        row["start"] = _instant(row.pop("start_us"))
    older = None
    if len(rows) > limit:
        last = rows[limit - 1]
        older = f"{last['start']:%Y-%m-%dT%H:%M:%S.%fZ}~{last['id']}"
    return CallPage(rows[:limit], older)


def facets(log: Rows, since: datetime) -> dict[str, list[Any]]:
    """The prompts, versions and models seen since then: what a filter form offers."""
    row = log.rows(FACETS, {"since": since})[0]
    return {
        "prompts": sorted(row["prompts"] or []),
        "versions": sorted(row["versions"] or [], reverse=True),
        "models": sorted(row["models"] or []),
    }


def previews(log: Rows, ids: Sequence[str], since: datetime) -> dict[str, str]:
    """The first 200 characters of the answers of these calls since then, by id; without kept content none."""
    if not ids:
        return {}
    params = {"ids": list(ids), "since": since, "chars": PREVIEW_CHARS}
    return {row["call_id"]: row["preview"] for row in log.rows(PREVIEWS, params)}


def _cursor(text: str) -> tuple[datetime, str]:
    instant, _, call_id = text.partition("~")
    try:
        start = datetime.strptime(instant, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadInput("`before` is not a cursor that a page of calls gave.") from error
    return start, call_id


@dataclass(frozen=True)
class ServedBy:
    """What one environment's recent live traffic of a prompt was served by."""

    prompt: str
    environment: str | None
    version: int
    calls: int
    last: datetime


def served_by(log: Rows, since: datetime, prompt: str | None = None) -> list[ServedBy]:
    """Live calls since then by prompt, environment and version; most calls first."""
    return [
        ServedBy(row["prompt"], row["environment"], row["version"], row["calls"], _instant(row["last_us"]))
        for row in log.rows(SERVED_BY, {"since": since, "prompt": prompt})
    ]


def strays(pointer: Pointer, served: Sequence[ServedBy]) -> list[int]:
    """
    The versions that served calls of an environment which began after its last move, and that it does not point at:
    where there are any, traffic and pointer differ, so some gateway does not follow.
    """
    moved = datetime.fromisoformat(pointer.settled) + SETTLE
    place = (pointer.prompt, pointer.environment)
    late = {item.version for item in served if (item.prompt, item.environment) == place and item.last > moved}
    return sorted(late - pointer.shares.keys())


def idle(pointer: Pointer, served: Sequence[ServedBy]) -> list[int]:
    """The versions of a split that served nothing, though many of the calls since its last move were theirs."""
    place = (pointer.prompt, pointer.environment)
    calls = {item.version: item.calls for item in served if (item.prompt, item.environment) == place}
    expected = {version: share * sum(calls.values()) for version, share in pointer.shares.items()}
    return [version for version, count in expected.items() if count >= MANY_CALLS and version not in calls]


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


FIND = """
SELECT id, start
FROM calls
WHERE ($since IS NULL OR start >= $since)
  AND ($until IS NULL OR start < $until)
  AND ($before_start IS NULL OR start < $before_start OR (start = $before_start AND id < $before_id))
  AND ($origin IS NULL OR origin = $origin)
  AND ($service IS NULL OR coalesce(service, 'no service') = $service)
  AND ($prompt IS NULL OR prompt = $prompt)
  AND ($version IS NULL OR version = $version)
  AND ($model IS NULL OR coalesce(response_model, request_model) = $model)
  AND ($outcome IS NULL OR outcome = $outcome)
  AND ($valid IS NULL OR output_valid = $valid)
  AND (
    $text IS NULL
    OR contains(id, lower($text))
    OR contains(lower(error_type), lower($text))
    OR contains(lower(error_message), lower($text))
    OR contains(lower(output_problem), lower($text))
  )
ORDER BY start DESC, id DESC
LIMIT $more
"""
"""Ids are lower case."""

READ = """
SELECT
    id, epoch_us(start) AS start_us, origin, operation, streamed, prompt, version, environment, service,
    coalesce(response_model, request_model) AS model, outcome, http_status, error_type, error_message,
    input_tokens, output_tokens, cost_nano_usd, latency_s, time_to_first_chunk_s, len(attempts) AS attempts,
    output_valid, output_problem, finish_reason
FROM calls
WHERE start BETWEEN $oldest AND $newest AND list_contains($ids, id)
ORDER BY start DESC, id DESC
"""

FACETS = """
SELECT
    list(DISTINCT prompt) FILTER (prompt IS NOT NULL) AS prompts,
    list(DISTINCT version) FILTER (version IS NOT NULL) AS versions,
    list(DISTINCT coalesce(response_model, request_model))
        FILTER (coalesce(response_model, request_model) IS NOT NULL) AS models
FROM calls
WHERE start >= $since
"""

PREVIEWS = """
SELECT call_id, left(output, $chars) AS preview FROM content WHERE start >= $since AND list_contains($ids, call_id)
"""

SERVED_BY = """
SELECT prompt, environment, version, count(*) AS calls, max(epoch_us(start)) AS last_us
FROM calls
WHERE start >= $since AND origin = 'live' AND version IS NOT NULL AND ($prompt IS NULL OR prompt = $prompt)
GROUP BY prompt, environment, version
ORDER BY calls DESC
"""
