"""The list of calls: filters, cursor, previews, and what traffic was served by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import seed
from tidegate.core.errors import BadInput
from tidegate.telemetry.find import CallFilter, facets, find_calls, previews, served_by
from tidegate.telemetry.record import Entry

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)


@pytest.fixture
def seeded(tmp_path: Path) -> Iterator[seed.Seeded]:
    with seed.empty(tmp_path, NOW) as project:
        yield project


def record(seeded: seed.Seeded, seconds_ago: float, **changed: object) -> str:
    row = seed.call(seeded, NOW - timedelta(seconds=seconds_ago), **changed)
    seeded.record(Entry(row, seed.content(row, "x" * 500)))
    return row.id


def test_pages_hold_every_call_once_newest_first(seeded: seed.Seeded) -> None:
    """Also when many calls began in one microsecond: the cursor is (start, id)."""
    ids = {record(seeded, 5) for _ in range(7)} | {record(seeded, seconds) for seconds in range(6, 10)}
    seen: list[str] = []
    before, pages = None, 0
    while True:
        page = find_calls(seeded.call_log, CallFilter(), limit=3, before=before)
        seen += [call["id"] for call in page.calls]
        before, pages = page.older, pages + 1
        if before is None:
            break
    assert (len(seen), set(seen), pages) == (11, ids, 4)
    assert page.calls[-1]["start"] == NOW - timedelta(seconds=9)


@pytest.mark.parametrize(
    "wanted",
    [
        CallFilter(prompt="support/triage"),
        CallFilter(version=9),
        CallFilter(model="other"),
        CallFilter(outcome="error"),
        CallFilter(valid=False),
        CallFilter(origin="eval"),
        CallFilter(service="mail"),
        CallFilter(text="UPSTREAM_TIME"),
        CallFilter(text="no byte for"),
        CallFilter(text="not json"),
        CallFilter(since=NOW - timedelta(seconds=7), until=NOW - timedelta(seconds=6)),
    ],
)
def test_each_filter_finds_what_it_names_and_nothing_else(seeded: seed.Seeded, wanted: CallFilter) -> None:
    record(seeded, 5)
    odd = record(
        seeded,
        7,
        prompt="support/triage",
        version=9,
        response_model="other",
        outcome="error",
        output_valid=False,
        output_problem="not JSON",
        error_type="upstream_timeout",
        error_message="no byte for 20 s",
        service="mail",
        origin="eval" if wanted.origin == "eval" else "live",
    )
    assert [call["id"] for call in find_calls(seeded.call_log, wanted).calls] == [odd]


def test_a_text_finds_an_id_and_is_never_a_pattern(seeded: seed.Seeded) -> None:
    wanted = record(seeded, 5)
    record(seeded, 6)
    assert [call["id"] for call in find_calls(seeded.call_log, CallFilter(text=wanted.upper())).calls] == [wanted]
    assert find_calls(seeded.call_log, CallFilter(text="%")).calls == []
    assert find_calls(seeded.call_log, CallFilter(text="' OR 1=1 --")).calls == []


@pytest.mark.parametrize("cursor", ["", "x", "2026~a", "2026-11-23T15:00:00.000000Z"])
def test_a_cursor_that_no_page_gave_is_refused(seeded: seed.Seeded, cursor: str) -> None:
    record(seeded, 5)
    if cursor in ("", "2026-11-23T15:00:00.000000Z"):
        assert len(find_calls(seeded.call_log, CallFilter(), before=cursor).calls) == 1
    else:
        with pytest.raises(BadInput, match="cursor"):
            find_calls(seeded.call_log, CallFilter(), before=cursor)


def test_previews_are_short_and_asked_for_by_id(seeded: seed.Seeded) -> None:
    first, second = record(seeded, 5), record(seeded, 6)
    assert previews(seeded.call_log, [first, "nobody"], NOW - timedelta(hours=1)) == {first: "x" * 200}
    assert previews(seeded.call_log, [], NOW) == {}
    assert previews(seeded.call_log, [second], NOW) == {}


def test_facets_are_what_was_seen(seeded: seed.Seeded) -> None:
    assert facets(seeded.call_log, NOW - timedelta(days=1)) == {"prompts": [], "versions": [], "models": []}
    record(seeded, 5, version=2)
    record(seeded, 5, prompt=None, version=None, response_model=None, request_model="gpt")
    found = facets(seeded.call_log, NOW - timedelta(days=1))
    assert found == {"prompts": [seed.NAME], "versions": [2], "models": ["gpt", "support-2026-03-01"]}


def test_served_by_counts_live_calls_with_a_version(seeded: seed.Seeded) -> None:
    record(seeded, 5, version=2)
    record(seeded, 6, version=2)
    record(seeded, 6, version=1, origin="eval")
    record(seeded, 6, version=None)
    record(seeded, 4_000, version=1)
    found = served_by(seeded.call_log, NOW - timedelta(minutes=15))
    assert [(item.prompt, item.environment, item.version, item.calls) for item in found] == [
        (seed.NAME, "production", 2, 2)
    ]
    assert found[0].last == NOW - timedelta(seconds=5)
