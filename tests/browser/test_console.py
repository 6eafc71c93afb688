"""The console in a real browser: under its own CSP, without an error, without a request to anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests import seed
from tests.browser.conftest import free_port, screenshots, served
from tidegate.console.app import create_app
from tidegate.core.artifact import Message
from tidegate.core.keys import Wanted
from tidegate.telemetry.record import AttemptRow, Entry

pytestmark = pytest.mark.browser

PAGES = {
    "overview": "/overview",
    "overview-by-model": "/overview?by=model",
    "calls": "/calls",
    "prompts": "/prompts",
    "prompt": "/prompts/support/answer",
    "rollback": "/rollback/support/answer",
    "deploy": "/deploy/support/answer?version=v1",
    "runs": "/runs",
    "trend": "/runs/trend",
    "compare": "/runs/compare",
}
WIDTHS = {"desktop": 1280, "phone": 390}
PIXELS = """canvas => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) colours.add(data.slice(i, i + 3).join());
    return colours.size;
}"""


class Watched:
    """A page that remembers everything that went wrong on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("dialog", self._asked_for)
        page.on("request", lambda request: self._asked(request.url))

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        self.charts()
        return self.page

    def charts(self) -> None:
        """Waits until every chart is drawn."""
        self.page.wait_for_function(
            "document.querySelectorAll('[data-drawn]').length === document.querySelectorAll('[data-chart]').length"
        )

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(f"{kind}: {text}")

    def _asked_for(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.url}/", "data:")):
            self.problems.append(f"request to {url}")


@pytest.fixture
def seeded(tmp_path: Path) -> Iterator[seed.Seeded]:
    with seed.incident(tmp_path, datetime.now(UTC), calls=200, zone="Europe/Berlin", port=free_port()) as project:
        yield project


@pytest.fixture
def url(seeded: seed.Seeded) -> Iterator[str]:
    app = create_app(registry=seeded.registry, call_log=seeded.call_log, project=seeded.project)
    with served(app, seeded.project.config.console.port) as address:
        yield address


@pytest.fixture
def watched(browser: Browser, url: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    watched = Watched(context.new_page(), url)
    yield watched
    context.close()
    assert watched.problems == []


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_page_draws_at_every_width_without_a_complaint(browser: Browser, url: str, mode: str) -> None:
    for name, width in WIDTHS.items():
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)  # type: ignore[arg-type]  # light or dark
        watched = Watched(context.new_page(), url)
        for title, path in PAGES.items():
            page = watched.open(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{title} is wider than a {name}"
            if folder := screenshots():
                page.screenshot(path=folder / f"{title}-{name}-{mode}.png", full_page=True)
        for path in ("/calls?valid=no", "/runs"):
            watched.open(path).locator("a.row-link").first.click()
            expect(watched.page.locator("h1")).to_be_visible()
        context.close()
        assert watched.problems == []


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (1280, ["overview", "calls", "prompts", "prompt", "runs"]),
        (390, ["overview", "calls", "prompts", "prompt", "runs", "trend"]),
    ],
)
def test_a_table_shows_all_its_columns(browser: Browser, url: str, width: int, titles: list[str]) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    for title in titles:
        page.goto(url + PAGES[title])
        hidden = "[...document.querySelectorAll('.table-wrap')].map(each => each.scrollWidth - each.clientWidth)"
        assert max(page.evaluate(hidden), default=0) <= 0, title
    context.close()


def test_charts_are_drawn_and_follow_the_theme(watched: Watched) -> None:
    page = watched.open("/overview")
    canvases = page.locator("[data-chart] canvas")
    assert canvases.count() == 5
    assert min(canvas.evaluate(PIXELS) for canvas in canvases.all()) > 5
    before = page.locator("#chart-validity canvas").evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("Switch between light and dark").click()
    page.wait_for_function("document.querySelectorAll('.plot.next').length === 0")
    assert page.locator("#chart-validity canvas").evaluate("canvas => canvas.toDataURL()") != before
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 13, 17)"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_bucket_tells_its_numbers_and_leads_to_its_calls(watched: Watched) -> None:
    page = watched.open("/overview")
    box = page.locator("#chart-calls canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(".tip")).to_contain_text("ok")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/calls?from=*")
    assert page.locator("tbody tr").count() > 0


def test_a_drag_over_a_chart_narrows_the_window(watched: Watched) -> None:
    page = watched.open("/overview?by=model")
    box = page.locator("#chart-latency canvas").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=4)
    page.mouse.up()
    page.wait_for_url("**/overview?*from=*")
    assert "by=model" in page.url
    watched.charts()


def test_the_list_of_calls_fills_in_previews_and_filters_by_select(watched: Watched) -> None:
    page = watched.open("/calls")
    expect(page.locator("[data-preview]").first).not_to_be_empty()
    page.get_by_label("Output").select_option("no")
    page.wait_for_url("**/calls?valid=no")
    rows = page.locator("tbody tr")
    assert rows.count() == rows.locator(".chip.bad").count() > 0


def test_the_live_view_shows_a_call_when_it_is_made(watched: Watched, seeded: seed.Seeded) -> None:
    page = watched.open("/calls")
    row = seed.call(seeded, datetime.now(UTC), service="late")
    seeded.record(Entry(row, seed.content(row, "here I am")))
    expect(page.locator(f'a[href="/calls/{row.id}"]')).to_be_visible(timeout=10_000)
    expect(page.locator(f'[data-preview="{row.id}"]')).to_have_text("here I am")
    page.locator("[data-live-toggle]").click()
    expect(page.locator("[data-live-toggle]")).to_have_attribute("aria-pressed", "false")


def test_an_empty_overview_comes_to_life(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with seed.empty(tmp_path, datetime.now(UTC), port=port) as project:
        app = create_app(registry=project.registry, call_log=project.call_log, project=project.project)
        with served(app, port) as url:
            context = browser.new_context()
            watched = Watched(context.new_page(), url)
            page = watched.open("/overview")
            expect(page.get_by_text("No calls yet")).to_be_visible()
            for seconds in (90, 60, 30, 1):
                project.record(Entry(seed.call(project, datetime.now(UTC) - timedelta(seconds=seconds))))
            expect(page.locator("[data-drawn]")).to_have_count(5, timeout=15_000)
            context.close()
            assert watched.problems == []


def test_rolling_back_from_the_overview(watched: Watched, seeded: seed.Seeded) -> None:
    """Monday morning: the notice, the diff, the button, the reason; v1 is live again."""
    page = watched.open("/overview")
    page.get_by_role("link", name="Roll back").click()
    expect(page.locator("del")).to_contain_text("Be warm and friendly.")
    page.get_by_label("Reason").fill("chats before its JSON")
    page.get_by_role("button", name="Roll back to v1").click()
    expect(page.get_by_role("status").first).to_contain_text("Rolled back production from v2 to v1 in")
    expect(page.locator(".timeline li").first).to_contain_text("chats before its JSON")
    assert seeded.registry.resolve(seed.NAME, "production").name == "v1"
    page.get_by_label("Dismiss").click()
    expect(page.get_by_text("Rolled back production from v2")).to_have_count(0)


def test_a_refused_deploy_is_explained_and_can_be_forced(watched: Watched, seeded: seed.Seeded) -> None:
    seeded.registry.rollback(seed.NAME, who="ada", reason="broken")
    page = watched.open("/deploy/support/answer?version=v2")
    page.get_by_role("button", name="Deploy v2").click()
    expect(page.get_by_role("status").first).to_contain_text("Nothing was changed")
    assert watched.problems.pop().startswith(
        "error: Failed to load resource: the server responded with a status of 403"
    )
    page.get_by_role("checkbox").check()
    page.get_by_role("textbox", name="Reason").fill("the parser was mended")
    page.get_by_role("button", name="Deploy v2").click()
    expect(page.get_by_role("status").first).to_contain_text("Deployed production from v1 to v2")


def test_a_trend_leads_to_a_run_and_to_two_beside_each_other(watched: Watched) -> None:
    page = watched.open("/runs/trend")
    canvas = page.locator("#chart-trend-0 canvas")
    assert canvas.evaluate(PIXELS) > 5
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    expect(page.locator(".tip")).to_contain_text("95 % interval")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/runs/*-*")
    expect(page.locator(".sentence")).to_contain_text("is-json must pass")
    expect(page.locator("details.case[open] ins")).to_contain_text("I am so sorry")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/runs/compare?*")
    assert page.locator(".metric .scale").count() == 1
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_share_is_deployed_from_the_form(watched: Watched, seeded: seed.Seeded) -> None:
    page = watched.open("/deploy/support/answer?version=v1&environment=staging")
    page.get_by_label("Share of its calls").fill("10")
    page.get_by_role("button", name="Deploy v1").click()
    expect(page.get_by_role("status").first).to_contain_text("v1 takes 10 % of staging's calls")
    pointer = next(one for one in seeded.registry.pointers(seed.NAME) if one.environment == "staging")
    assert pointer.shares == {2: 0.9, 1: 0.1}


def test_versions_are_compared_by_choosing_two(watched: Watched) -> None:
    page = watched.open("/prompts/support/answer")
    page.get_by_label("Compare from v2").check()
    page.get_by_label("Compare to v1").check()
    page.get_by_role("button", name="Compare").first.click()
    expect(page.locator("#diff del")).to_contain_text("Be warm and friendly.")


@pytest.mark.parametrize(
    "payload",
    [
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "<img src=https://evil.test/x.png>![x](https://evil.test/x.png)",
        "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
        "<svg><style>@import 'https://evil.test/x.css'</style><script>alert(1)</script></svg>",
        "<form action=https://evil.test><button autofocus>x</button></form>",
        "'\"--></title></textarea></style></noscript><script>alert(1)</script>",
        "{{constructor.constructor('alert(1)')()}}",
    ],
)
def test_hostile_content_stays_text_in_a_browser(watched: Watched, seeded: seed.Seeded, payload: str) -> None:
    row = seed.call(
        seeded,
        datetime.now(UTC),
        prompt=payload[:60],
        version=3,
        outcome="error",
        error_type=payload,
        error_message=payload,
        output_valid=False,
        output_problem=payload,
        response_model=payload,
        service=payload,
    )
    seeded.record(Entry(row, seed.content(row, payload, question=payload, system=payload)))
    said = msgspec.structs.replace(seed.artifact("x"), messages=(Message("user", payload),))
    seeded.registry.register(seed.NAME, said)
    seeded.registry.deploy(seed.NAME, "v3", who=payload, reason=payload, force=True)
    for path in ("/overview?by=model", "/overview", "/calls", "/prompts/support/answer"):
        page = watched.open(path)
        assert page.locator("img, iframe, object, embed").count() == 0
    assert payload in watched.open(f"/calls/{row.id}").inner_text("main")
    page = watched.open("/overview?by=service")
    box = page.locator("#chart-latency canvas").bounding_box()
    assert box is not None
    for share in (0.92, 0.94, 0.96, 0.98):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    assert page.locator("img, iframe").count() == 0


LONG = "a-name-without-an-end-" * 12


@pytest.mark.parametrize(("width", "mode"), [(390, "dark"), (1280, "light")])
def test_names_of_any_length_stay_in_their_place(
    browser: Browser, url: str, seeded: seed.Seeded, width: int, mode: str
) -> None:
    now = datetime.now(UTC)
    long = seed.call(
        seeded,
        now,
        prompt=f"team/{LONG}"[:100],
        version=2,
        outcome="error",
        error_type=LONG,
        error_message=LONG,
        response_model=LONG,
        service=LONG,
        key=LONG,
        conversation_id=LONG,
        tags={LONG[:60]: LONG},
        attempts=[AttemptRow(LONG, 0.2, 500, LONG)],
    )
    model = seed.call(seeded, now, prompt=None, version=None, response_model=LONG)
    seeded.record(Entry(long, seed.content(long, LONG)), Entry(model))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)  # type: ignore[arg-type]  # light or dark
    watched = Watched(context.new_page(), url)
    for path in ("/overview", "/overview?by=model", "/overview?by=service", "/calls", f"/calls/{long.id}"):
        page = watched.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        hidden = "[...document.querySelectorAll('.table-wrap')].map(each => each.scrollWidth - each.clientWidth)"
        assert max(page.evaluate(hidden), default=0) <= 0, path
    context.close()
    assert watched.problems == []


def test_a_text_of_300_kb_is_laid_out_at_once(watched: Watched, seeded: seed.Seeded) -> None:
    """`dir=auto` alone took Chromium minutes for it."""
    row = seed.call(seeded, datetime.now(UTC))
    seeded.record(Entry(row, seed.content(row, "x", question="word " * 60_000)))
    page = watched.open(f"/calls/{row.id}")
    page.set_viewport_size({"width": 1200, "height": 2_000})
    page.screenshot(full_page=True, timeout=10_000)


def test_a_row_that_has_the_focus_is_framed(watched: Watched) -> None:
    page = watched.open("/calls")
    first = page.locator("a.row-link").first
    page.locator("select").last.focus()
    page.keyboard.press("Tab")
    expect(first).to_be_focused()
    assert first.evaluate("link => getComputedStyle(link, '::after').outlineStyle") == "solid"


def test_a_live_page_says_when_the_console_is_gone(watched: Watched) -> None:
    page = watched.open("/calls")
    toggle = page.locator("[data-live-toggle]")
    page.route("**/calls", lambda route: route.abort())
    expect(toggle).to_have_attribute("data-lost", "", timeout=10_000)
    page.unroute("**/calls")
    expect(toggle).not_to_have_attribute("data-lost", "", timeout=10_000)
    assert all("Failed to load resource" in problem for problem in watched.problems)
    watched.problems.clear()


def test_a_live_page_whose_session_is_over_leads_to_the_sign_in(
    browser: Browser, url: str, seeded: seed.Seeded
) -> None:
    token = seeded.registry.keys.create(Wanted("eve", "viewer"), who="ada").token
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/calls?valid=no")
    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/calls?valid=no")
    seeded.registry.keys.revoke("eve", who="ada")
    page.wait_for_url("**/sign-in?next=*", timeout=10_000)
    expect(page.locator("nav")).to_have_count(0)
    expect(page.locator('input[name="next"]')).to_have_value("/calls?valid=no")
    context.close()
