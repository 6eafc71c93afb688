"""`tidegate calls`: the records of calls: a list, a tail, or one of them whole."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from cyclopts import Parameter, validators
from rich.text import Text

from tidegate import compose
from tidegate.cli.output import out, print_json, usd, visible
from tidegate.config import Project
from tidegate.core.errors import BadInput, NotFound

if TYPE_CHECKING:
    from tidegate.telemetry.queries import CallLog
    from tidegate.telemetry.remote import RemoteCallLog

FOLLOW_S = 0.5
NEWEST = 1_000
"""How many of the newest calls a tail looks at each time."""
SHOWN_ID = 8
"""The last characters of an id tell calls apart; the first ones are the time."""
HEAD = ("call", "time", "prompt or model", "outcome", "took", "tokens", "cost", "answered by")
WIDTHS = (SHOWN_ID, 14, 18, 8, 6, 9, 11)
"""Of all but the last column, in a narrow terminal."""
NARROW = sum(WIDTHS) + len(WIDTHS) - 1
MIN_MODEL = 12
MIN_MESSAGE = 10
OUTCOMES = {"ok": "green", "error": "red", "lost": "red", "rejected": "yellow", "client_closed": "yellow"}


def calls_(
    call: str | None = None,
    /,
    *,
    where: Annotated[str | None, Parameter(name=["--where", "-w"])] = None,
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=validators.Number(gte=1, lte=10_000))] = 20,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    json: bool = False,
) -> None:
    """
    List the newest calls, or show one whole: its attempts, what was sent and what came back.

    Example: `tidegate calls --where "not output_valid and version = 2" --limit 5`

    Parameters
    ----------
    call
        The id of one call, or its last characters as the list shows them.
    where
        A SQL condition over the columns of `calls`, such as `latency_s > 2`.
    limit
        How many, newest first.
    follow
        Go on, and print each call as it is recorded, until Ctrl-C.
    config
        The tidegate.yaml to use; by default the nearest one upwards from here.
    json
        Print records as JSON, one per line.
    """
    project = compose.project(config)
    log = compose.call_log(project)
    zone = ZoneInfo(project.config.timezone)
    if call is not None:
        found = find(log, call)
        if json:
            print_json(found)
        else:
            out.print(whole(found, zone))
        return
    if not json and not follow:
        show_newest(project, where, limit)
        return
    rows = log.calls(where, limit)
    if not json:
        out.print(head())
    if follow:
        rows = rows[::-1]
    show(rows, zone, json=json)
    if follow:
        for fresh in tail(log, where, {row["id"] for row in rows}):
            show(fresh, zone, json=json)


def show_newest(project: Project, where: str | None, limit: int) -> None:
    """Prints the newest calls, or that there are none."""
    rows = compose.call_log(project).calls(where, limit)
    if not rows:
        out.print(
            Text("No such calls yet." if where else "No calls yet. `tidegate serve` records every one it serves.")
        )
        return
    out.print(head())
    show(rows, ZoneInfo(project.config.timezone), json=False)


def show(rows: list[dict[str, Any]], zone: ZoneInfo, *, json: bool) -> None:
    """Prints rows as they stand."""
    if json:
        print_json(rows, lines=True)
        return
    for row in rows:
        out.print(listed(row, zone))


def tail(log: CallLog | RemoteCallLog, where: str | None, seen: set[str]) -> Iterator[list[dict[str, Any]]]:
    """
    Calls recorded after those in `seen`, oldest first, for ever.

    A call is recorded when it ends and sorted by when it began, so a new one may stand below older ones.
    """
    seen |= {row["id"] for row in log.calls(where, NEWEST)}
    while True:
        time.sleep(FOLLOW_S)
        newest = log.calls(where, NEWEST)
        fresh = [row for row in reversed(newest) if row["id"] not in seen]
        seen = {row["id"] for row in newest} | seen if len(seen) < 10 * NEWEST else {row["id"] for row in newest}
        if fresh:
            yield fresh


def find(log: CallLog | RemoteCallLog, call: str) -> dict[str, Any]:
    """One call with its content, by id or by the end of it. Raises NotFound, BadInput when several end so."""
    whole_call = log.call(call)
    if whole_call is not None:
        return whole_call
    if len(call) < 6:
        raise BadInput(f"{call!r} is too short: an id, or at least its last 6 characters.")
    plain = call.replace("'", "''")
    ends_so = [row["id"] for row in log.calls(f"suffix(id, '{plain}')", limit=4)]
    if not ends_so:
        raise NotFound(f"no call {visible(call)!r} is recorded here. `tidegate calls` lists the newest.")
    if len(ends_so) > 1:
        raise BadInput(f"several calls end in {call!r}: {', '.join(ends_so[:3])} … Give more of the id.")
    named = log.call(ends_so[0])
    if named is None:
        raise NotFound(f"no call {visible(call)!r} is recorded here any more.")
    return named


def head() -> Text:
    """The titles of the list."""
    return Text(_line(HEAD), style="bold")


def listed(row: dict[str, Any], zone: ZoneInfo) -> Text:
    """One call as a line of the list, as wide as the terminal; of one that failed it says why."""
    widths = _widths()
    invalid = row["outcome"] == "ok" and row["output_valid"] is False
    outcome = "invalid" if invalid else "closed" if row["outcome"] == "client_closed" else row["outcome"]
    cells = [
        _one_line(row["id"][-SHOWN_ID:]),
        f"{_local(row['start'], zone):%m-%d %H:%M:%S}",
        _called(row, widths[2]),
        outcome,
        seconds(row["latency_s"]),
    ]
    if row["error_type"] is not None:
        start = _line(cells) + " "
        text = Text(start + _why(row, out.width - len(start)))
    else:
        tokens = (row["input_tokens"], row["output_tokens"] or 0)
        cells.append("–" if tokens[0] is None else "→".join(map(_count, tokens)))
        text = Text(_line([*cells, usd(row["cost_nano_usd"]), _one_line(row["response_model"] or "–")]).rstrip())
    before = sum(widths[:3]) + 3
    text.stylize("red" if invalid else OUTCOMES.get(row["outcome"], ""), before, before + widths[3])
    return text


def _called(row: dict[str, Any], width: int) -> str:
    if row["prompt"] is None:
        return _one_line(row["request_model"] or "–")
    version = "" if row["version"] is None else f" v{row['version']}"
    return cut(_one_line(row["prompt"]), width - len(version)) + version


def _why(row: dict[str, Any], room: int) -> str:
    """The type of an error, and as much of its message as there is room for, if that says anything."""
    code, message = _one_line(row["error_type"]), _one_line(row["error_message"] or "")
    room -= len(code) + 2
    return f"{code}: {cut(message, room)}" if message and room >= min(MIN_MESSAGE, len(message)) else code


def _widths() -> tuple[int, ...]:
    """Of the columns: a terminal of 80 has no room for the model that answered, and a wide one most of it."""
    spare = max(0, out.width - NARROW)
    wider = spare // 3
    model = spare - wider - 1
    if model < MIN_MODEL:
        wider, model = spare, 0
    return *WIDTHS[:2], WIDTHS[2] + wider, *WIDTHS[3:], model


def _line(cells: Sequence[str]) -> str:
    """The first cells of a line in their columns; a column without width is not there."""
    return " ".join(cut(cell, width).ljust(width) for cell, width in zip(cells, _widths(), strict=False) if width)


def _count(tokens: int) -> str:
    """In at most four characters, up to 999 million."""
    if tokens < 10_000:
        return str(tokens)
    return f"{tokens / 1_000:.0f}k" if tokens < 999_500 else f"{tokens / 1_000_000:.0f}M"


def whole(row: dict[str, Any], zone: ZoneInfo) -> Text:
    """One call with everything that is known about it; no stored control character reaches the terminal."""
    text = Text()

    def add(name: str, value: object) -> None:
        if value is not None and value not in ("", {}, []):
            text.append(f"{name:<26}", style="dim").append(visible(str(value)) + "\n")

    version = "" if row["version"] is None else f" v{row['version']}"
    add("call", row["id"])
    add("start", f"{_local(row['start'], zone):%Y-%m-%d %H:%M:%S.%f %Z}")
    add("prompt", f"{row['prompt']}{version}" if row["prompt"] else None)
    add("outcome", f"{row['outcome']}, HTTP {row['http_status']}")
    add("cost", usd(row["cost_nano_usd"]))
    shown = {
        "id",
        "start",
        "prompt",
        "version",
        "outcome",
        "http_status",
        "cost_nano_usd",
        "attempts",
        "tags",
        "content",
    }
    for name, value in row.items():
        if name not in shown:
            add(name, value)
    for key, value in (row["tags"] or {}).items():
        add(f"tag {key}", value)
    for number, attempt in enumerate(row["attempts"] or [], 1):
        parts = (attempt["target"], attempt["status"], attempt["error_type"], seconds(attempt["latency_s"]))
        add(f"attempt {number}", ", ".join(str(part) for part in parts if part is not None))
    content = row["content"]
    if content is None:
        text.append("\nIts content was not kept.", style="dim")
        return text
    for name, body in content.items():
        if body is not None:
            said = body if isinstance(body, str) else msgspec.json.encode(body).decode()
            text.append(f"\n{name}\n", style="bold").append(visible(said) + "\n")
    text.rstrip()
    return text


def seconds(value: float | None) -> str:
    """A duration in at most six characters: `0.12 s`, `12.3 s`, `123 s`."""
    if value is None:
        return "–"
    return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s" if value < 99.95 else f"{value:.0f} s"


def cut(text: str, width: int) -> str:
    """At most `width` characters, with `…` where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _one_line(text: str) -> str:
    return visible(text).replace("\n", "␊").replace("\t", " ")


def _local(instant: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(instant).astimezone(zone)
