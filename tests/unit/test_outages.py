"""What the log says of a provider that fails."""

from __future__ import annotations

import pytest

from tidegate.core.errors import UpstreamRejected, UpstreamUnavailable
from tidegate.fakes import FixedClock
from tidegate.gateway.outages import QUIET_S, Outages

DOWN = UpstreamUnavailable("127.0.0.1:9: no connection: connection refused.")
DOWN.provider = "local"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_an_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FixedClock()
    outages = Outages(clock)
    for _ in range(50):
        outages.failed("local", DOWN)
        clock.move(1)
    outages.answered("other")
    (begun,) = said(caplog)
    assert begun.startswith("provider 'local': 127.0.0.1:9: no connection: connection refused. Further failures")
    outages.answered("local")
    outages.answered("local")
    assert said(caplog) == ["provider 'local' answers again: 50 tries failed within 50 s."]


def test_a_provider_that_fails_now_and_then_is_said_to_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = FixedClock()
    outages = Outages(clock)
    for _ in range(10):
        outages.failed("local", DOWN)
        outages.answered("local")
        clock.move(QUIET_S / 5)
    assert len(said(caplog)) == 4


@pytest.mark.parametrize(("status", "lines"), [(400, 0), (404, 0), (429, 0), (401, 1), (403, 1), (500, 1), (529, 1)])
def test_what_is_only_about_the_request_is_no_outage(caplog: pytest.LogCaptureFixture, status: int, lines: int) -> None:
    outages = Outages(FixedClock())
    outages.failed("local", UpstreamRejected(f"local/m answered {status}", status=status, body=b""))
    assert len(said(caplog)) == lines
