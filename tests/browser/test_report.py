"""The HTML report in a real browser, from disk: nothing runs, nothing is fetched, nothing hangs over the edge."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, expect

from tests.unit.judged import judged
from tidegate.evals.reports.judged import Judged
from tidegate.evals.reports.page import page as written

Mode = Literal["light", "dark"]
pytestmark = pytest.mark.browser

KINDS = ("broken", "fixed", "flaky", "same", "error")
REPORTS = {
    "full": [judged(*KINDS)],
    "empty": [judged(verdict="UNUSABLE", metrics=())],
    "one": [judged("broken")],
    "many": [judged(*(KINDS * 100))],
    "long": [judged("broken", long=5_000)],
    "hostile": [judged(*KINDS, hostile=True, ids=("<b>\u202e" + "x" * 200, *"bcde"))],
    "several": [judged("broken"), judged("same", verdict="PASS")],
    "measured": [Judged(judged(*KINDS).run)],
}


class Opened:
    """A report in a page of its own, and whatever it did that it should not."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        self._address = file.as_uri()
        page.goto(self._address)

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if request.url != self._address:
            self.wrong.append(request.url)


class Open(Protocol):
    """Writes and opens one of REPORTS."""

    def __call__(self, name: str, *, width: int = 1280, mode: Mode = "light") -> Opened: ...


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    pages: list[Page] = []

    def open_(name: str, *, width: int = 1280, mode: Mode = "light") -> Opened:
        body = written(REPORTS[name], command="tidegate gate", version="0.1.0", now=datetime(2026, 3, 1, tzinfo=UTC))
        file = tmp_path / f"{name}.html"
        file.write_bytes(body)
        pages.append(browser.new_page(viewport={"width": width, "height": 844}, color_scheme=mode))
        return Opened(pages[-1], file)

    yield open_
    for page in pages:
        page.close()


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_from_disk_without_a_sound(opened: Open, name: str, width: int) -> None:
    report = opened(name, width=width)
    report.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert report.wrong == []
    assert report.page.evaluate("document.documentElement.scrollWidth") == width
    assert report.page.locator("h1").first.is_visible()


def test_what_would_run_is_forbidden_too(opened: Open) -> None:
    """Should an answer ever get past the escaping, the page's own policy stops it."""
    report = opened("one")
    report.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
    report.page.wait_for_timeout(200)
    assert any("Content Security Policy" in line for line in report.wrong)
    assert "1" not in report.wrong, "no dialog"


def test_a_filter_leaves_its_cases(opened: Open) -> None:
    page = opened("full").page
    shown = page.locator("details.case:visible")
    expect(shown).to_have_count(5)
    for label, count in (("broken", 2), ("fixed", 1), ("failing", 3), ("all", 5)):
        page.locator("fieldset label", has_text=label).click()
        expect(shown).to_have_count(count)


def test_it_follows_the_readers_light(opened: Open) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    assert opened("one", mode="light").page.evaluate(colour) == "rgb(247, 248, 250)"
    assert opened("one", mode="dark").page.evaluate(colour) == "rgb(11, 13, 17)"


def test_on_paper_failing_cases_are_open_and_buttons_are_gone(opened: Open) -> None:
    page = opened("many", mode="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("fieldset")).to_be_hidden()
    last = page.locator("details.case.fails").last
    assert last.get_attribute("open") is None
    expect(last.locator(".pair")).to_be_visible()
    expect(page.locator("details.case.passes").last.locator(".pair")).to_be_hidden()
