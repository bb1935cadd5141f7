"""The pages in a real browser, on a real testbed: watched, steered, and looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.cli.conftest import Shell
from tests.services import chromium
from tests.ui.pages import PATIENCE_S, Served, opened, picture, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NODES = 5

# A busy machine takes its time.
expect.set_options(timeout=1000 * PATIENCE_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as found:
        yield found


@pytest.fixture(scope="module")
def lab(shell: Shell) -> Shell:
    """A shell with a testbed that is up."""
    said = shell("up", "quickstart", "--set", "slots.count=60")
    assert said.code == 0, said.err
    return shell


@pytest.fixture
def server(lab: Shell) -> Iterator[Served]:
    with served(lab.home) as found:
        yield found


def test_a_run_from_its_start_to_the_comparison(
    lab: Shell, browser: Browser, server: Served
) -> None:
    with opened(browser, server.address) as page:
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        page.get_by_role("button", name="Start run").click()
        page.get_by_label("episodes").first.fill("20")
        page.get_by_label("label, to find").fill("from the page")
        expect(page.locator(".dialog code")).to_have_text(
            "testbed run --episodes 20 --label 'from the page'"
        )
        page.get_by_role("button", name="Start", exact=True).click()
        page.locator("ol.events").get_by_text("begins under ratc").wait_for()
        page.get_by_text("slot ").first.wait_for()
        # Two episodes, which is when there is an interval.
        page.get_by_text("95 % interval").wait_for()
        picture(page, "live-wide-light")

        page.get_by_role("button", name="Scheduler").first.click()
        page.get_by_label("scheduler").last.click()
        page.get_by_role("option", name="rda", exact=True).click()
        expect(page.locator(".dialog code").last).to_contain_text("testbed scheduler set rda")
        page.get_by_role("button", name="Change", exact=True).click()
        page.locator("ol.events").get_by_text("rda was acknowledged by nodes").wait_for()
        page.locator("ol.events").get_by_text("rda decides on nodes").wait_for()

        page.get_by_role("button", name="Stop run").click()
        picture(page, "dialog-wide-light")
        page.locator(".dialog").get_by_role("button", name="Stop run").click()
        page.locator("ol.events").get_by_text("is stopped").wait_for()

        page.get_by_role("link", name="Compare the runs").click()
        page.get_by_role("heading", name="Compare runs").wait_for()
        picture(page, "compare-wide-light")

    status = lab("status", "--json").document
    assert status["run"]["label"] == "from the page"
    assert status["run"]["progress"]["state"] == "stopped"
    assert [change["scheduler"] for change in status["run"]["changes"]] == ["rda"]


def test_a_mistake_is_told_where_it_was_made(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as page:
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        # No deploy was accepted, so there is nothing to go back to.
        page.get_by_role("button", name="Policy").click()
        page.get_by_role("button", name="Roll back to the one").click()
        page.get_by_role("button", name="Roll back", exact=True).click()
        problem = page.locator(".dialog [role=alert]").last
        expect(problem).not_to_be_empty()


@pytest.mark.parametrize(
    ("width", "dark"), [(400, False), (400, True), (1600, True)], ids=["phone", "night", "wide"]
)
def test_it_can_be_read(
    lab: Shell, browser: Browser, server: Served, width: int, dark: bool
) -> None:
    running = lab.start("run", "--episodes", "6", "--scheduler", "ratc")
    try:
        with opened(browser, server.address, width=width, height=900, dark=dark) as page:
            page.get_by_text("95 % interval").wait_for()
            picture(page, f"live-{width}-{'dark' if dark else 'light'}")
            # Nothing has to be scrolled sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            is_dark = page.evaluate("document.body.classList.contains('body--dark')")
            assert is_dark == dark
    finally:
        lab("stop")
        running.wait(60)
        for stream in (running.stdout, running.stderr):
            if stream is not None:
                stream.close()


def test_light_and_dark_are_remembered(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as page:
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        page.get_by_label("light or dark").click()
        page.get_by_role("option", name="dark").click()
        page.locator("body.body--dark").wait_for()
        page.reload()
        page.locator("body.body--dark").wait_for()


def test_a_node_is_opened_with_the_keyboard(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as page:
        page.locator(".nodes .q-item").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="open node 2").focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Node 2").wait_for()
        expect(page.locator(".dialog code").last).to_contain_text("testbed logs 2 --follow")
        picture(page, "node-wide-light")
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Node 2").wait_for(state="hidden")


def test_nobody_gets_in_without_the_cookie(browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as page:
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        stranger = browser.new_context().new_page()
        answer = stranger.goto(server.place)
        assert answer is not None
        assert answer.status == 403
        stranger.context.close()


def test_a_node_that_dies_is_seen(lab: Shell, browser: Browser, server: Served) -> None:
    with opened(browser, server.address) as page:
        page.get_by_text(f"{NODES} of {NODES}").wait_for()
        page.get_by_role("button", name="Kill node").click()
        page.get_by_role("button", name="Kill it").click()
        page.locator("ol.events").get_by_text("was killed by hand").wait_for()
        page.locator("ol.events").get_by_text("node 0 is dead").wait_for()
        page.get_by_text(f"{NODES - 1} of {NODES}").wait_for()
        picture(page, "dead-wide-light")


def test_there_is_no_testbed(lab: Shell, browser: Browser) -> None:
    with served(lab.home, "--name", "absent") as server, opened(browser, server.address) as page:
        page.get_by_role("alert").get_by_text("absent").first.wait_for()
        expect(page.get_by_role("alert").locator("code")).to_contain_text(
            "testbed up quickstart --name absent"
        )
