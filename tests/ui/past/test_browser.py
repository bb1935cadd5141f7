"""The pages about past runs in a real browser: found, tagged, compared, deleted, looked at."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from testbed.policies import PolicyCard, save, shipped
from testbed.storage.dataset import build
from testbed.storage.tasklog import open_task_log
from tests.services import chromium
from tests.ui.pages import Served, opened, picture, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

PATIENCE_MS = 150_000
"""A run is read and its charts are drawn; on a busy machine that takes long."""

EXPERIMENT = "20260131-142501-quickstart-1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as found:
        yield found


@pytest.fixture(scope="module")
def filled(past: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of its own with runs, a data set, policies, and an experiment that learns."""
    home = Path(shutil.copytree(past, tmp_path_factory.mktemp("filled") / "home"))
    with open_task_log(home / "tasklog.sqlite") as log:
        runs = [run.id for run in log.runs()]
        log.tag_run(runs[0], ["paper", "baseline"])
        log.note_run(runs[0], "What all others are compared with.")
        build(log, runs[:1], "paper-v1", home / "datasets" / "first")
    offline = policy(home, "offline", 0.91)
    policy(home, "o2o", 0.94, offline)
    policy(home, "o2o", 0.93, offline)
    folder = home / "o2o" / EXPERIMENT
    (folder / "online").mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"source": "ratc", "seed": 3}))
    (folder / "online" / "metrics.csv").write_text(
        "step,episodes,evaluation,standard_error,rolled_back,loss\n"
        + "".join(
            f"{n},{10 * n},{0.9 + 0.002 * n},0.005,{float(n == 4)},{1 / (n + 1)}\n"
            for n in range(9)
        )
    )
    return home


def policy(home: Path, name: str, rate: float, *parents: str) -> str:
    """Save a policy in the home's store; return its id."""
    actor = shipped()
    card = PolicyCard.describe(
        name,
        actor.actor,
        kind=actor.card.kind,
        encoder=actor.card.encoder,
        nodes=actor.card.nodes,
        parents=parents,
        evaluation={"success_rate": rate},
        scenario="quickstart",
    )
    save(str(home / "artifacts"), card, actor.actor)
    return card.id


@pytest.fixture(scope="module")
def server(filled: Path) -> Iterator[Served]:
    with served(filled) as found:
        yield found


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """A window on the list of runs."""
    with window(browser, server, "/runs") as found:
        yield found


@contextmanager
def window(browser: Browser, server: Served, path: str, **look: Any) -> Iterator[Page]:
    """Open a page in a window of its own; afterwards the server's next address is known."""
    with opened(browser, at(server, path), **look) as found:
        server.next_address()
        found.set_default_timeout(PATIENCE_MS)
        yield found


def at(server: Served, path: str) -> str:
    """The address of a page, with the token."""
    token = server.address.partition("/?")[2]
    return f"{server.place}{path}?{token}"


def rows(page: Page) -> int:
    return page.locator("table.runs tbody tr").count()


def test_runs_are_found_and_the_address_keeps_what_was_asked_for(page: Page) -> None:
    page.get_by_text("4 of 4 runs").wait_for()
    assert rows(page) == 4
    page.get_by_label("Search").fill("SECOND")
    page.get_by_text("1 of 4 runs").wait_for()
    assert rows(page) == 1
    page.reload()
    page.get_by_text("1 of 4 runs").wait_for()
    expect(page.get_by_label("Search")).to_have_value("SECOND")
    expect(page.locator(".command code").first).to_contain_text("--search SECOND")
    page.get_by_label("Search").fill("")
    page.get_by_text("4 of 4 runs").wait_for()
    page.get_by_label("Scheduler").click()
    page.get_by_role("option", name="local", exact=True).click()
    page.get_by_text("1 of 4 runs").wait_for()
    assert "scheduler=local" in page.url


def test_runs_are_tagged_annotated_and_found_again(page: Page, filled: Path) -> None:
    page.get_by_role("link", name=run_of(filled, "rda")).click()
    page.get_by_role("heading", name="rda on quickstart").wait_for()
    page.get_by_label("Tags").fill("odd")
    page.keyboard.press("Enter")
    page.get_by_label("Note").fill("Slower than it should be.")
    page.get_by_role("button", name="Save note").click()
    page.get_by_text("saved").wait_for()
    page.get_by_role("link", name="Runs").click()
    page.get_by_label("Tag", exact=True).click()
    page.get_by_role("option", name="odd").click()
    page.get_by_text("1 of 4 runs").wait_for()
    page.get_by_text("Slower than it should be.").first.wait_for()
    with open_task_log(filled / "tasklog.sqlite") as log:
        run = log.run(run_of(filled, "rda"))
        assert (run.tags, run.note) == (("odd",), "Slower than it should be.")
        log.tag_run(run.id, remove=run.tags)


def run_of(home: Path, scheduler: str) -> str:
    with open_task_log(home / "tasklog.sqlite") as log:
        return next(run.id for run in log.runs() if run.info.scheduler == scheduler)


def test_ticked_runs_are_compared(page: Page, filled: Path) -> None:
    for scheduler in ("ratc", "local"):
        page.get_by_label(f"choose run {run_of(filled, scheduler)}").click()
    page.get_by_role("button", name="Compare 2").click()
    page.get_by_text(re.compile("ratc (is better than|and) local")).first.wait_for()
    page.get_by_text("Paired differences").wait_for()
    picture(page, "compare-1600-light")
    page.get_by_label("Metric").click()
    page.get_by_role("option", name="latency", exact=True).click()
    page.wait_for_url("**by=latency")
    page.get_by_text(re.compile(r"by \d+\.\d ms|no real difference")).first.wait_for()


def test_a_run_is_deleted_only_after_a_question(
    browser: Browser, past: Path, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(past, tmp_path / "home"))
    run = run_of(home, "local")
    with served(home) as server, window(browser, server, "/runs") as page:
        page.get_by_label(f"choose run {run}").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Cancel").wait_for(state="hidden")
        assert rows(page) == 4
        page.get_by_role("button", name="Delete").click()
        picture(page, "delete-1600-light")
        page.get_by_role("button", name="Delete 1 run").click()
        page.get_by_text("3 of 3 runs").wait_for()
    with open_task_log(home / "tasklog.sqlite") as log:
        assert run not in [each.id for each in log.runs()]


def test_the_time_line_is_zoomed_by_keys_and_tasks_have_histories(page: Page, filled: Path) -> None:
    page.get_by_role("link", name=run_of(filled, "local")).click()
    line = page.locator(".timeline")
    line.wait_for()
    whole = line.locator("svg").get_attribute("viewBox")
    line.focus()
    page.keyboard.press("+")
    assert line.locator("svg").get_attribute("viewBox") != whole
    page.keyboard.press("0")
    assert line.locator("svg").get_attribute("viewBox") == whole
    page.locator("table button").first.click()
    page.get_by_role("dialog").get_by_text("decided by").wait_for()
    picture(page, "task-1600-light")


def test_curves_follow_an_experiment(browser: Browser, server: Served, filled: Path) -> None:
    path = filled / "o2o" / EXPERIMENT / "online" / "metrics.csv"
    with window(browser, server, f"/learning/{EXPERIMENT}") as page:
        page.get_by_text("o2o: step 8").wait_for()
        with path.open("a") as stream:
            stream.write("9,90,0.95,0.005,0.0,0.1\n")
        page.get_by_text("o2o: step 9").wait_for()
        page.get_by_text("Success rate while fine-tuning").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_all_pages_can_be_read(
    browser: Browser, server: Served, filled: Path, width: int, dark: bool
) -> None:
    run, serving = run_of(filled, "ratc"), run_of(filled, "slack")
    pages = {
        "/runs": "4 of 4 runs",
        f"/runs/{run}": "Time line of an episode",
        f"/runs/{serving}": "How requests ended",
        f"/compare?like={run}": "Verdicts",
        "/data-sets": "paper-v1",
        "/data-sets/first": "Facts",
        "/policies": "Family tree",
        f"/learning/{EXPERIMENT}": "Settings",
    }
    with window(browser, server, "/runs", width=width, height=900, dark=dark) as page:
        for number, (path, text) in enumerate(pages.items()):
            if number:
                page.goto(server.place + path)
            page.get_by_text(text).locator("visible=true").first.wait_for()
            page.wait_for_timeout(500)
            look = "dark" if dark else "light"
            picture(page, f"{number}-{path.split('/')[1].split('?')[0]}-{width}-{look}")
            # Nothing has to be scrolled sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_what_is_not_there_is_told(browser: Browser, server: Served, tmp_path: Path) -> None:
    with window(browser, server, "/runs/nobody") as page:
        page.get_by_role("alert").get_by_text("no run 'nobody'").wait_for()
        for path in ("/data-sets/nobody", "/policies/nobody", "/learning/nobody"):
            page.goto(server.place + path)
            page.get_by_role("alert").get_by_text("nobody").first.wait_for()
    with served(tmp_path / "home") as empty, window(browser, empty, "/runs") as page:
        page.get_by_text("testbed sim quickstart").wait_for()
        page.goto(empty.place + "/data-sets")
        page.get_by_text("testbed dataset build latest").wait_for()
