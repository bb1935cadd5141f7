"""What executing a task does, and how each application is found."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from pathlib import Path

import pytest

from edgenode.applications import Application, create, names
from edgenode.applications.matrix import SIDE, work
from edgenode.payload import payload_of
from testbed.errors import UsageError
from testbed.model.draws import Purpose, failure_after, uniform
from testbed.model.events import RecordKind
from testbed.model.task import Task
from testbed.scenario.plan import ApplicationSpec
from tests.edgenode.network import cluster, plan, task

HERE = __name__
RELEASED = threading.Event()


def quick(task: Task, payload: bytes | None) -> None:
    """Takes no time at all."""


def stuck(task: Task, payload: bytes | None) -> None:
    """Does not come back until the test lets it."""
    RELEASED.wait(10)


def failing(task: Task, payload: bytes | None) -> None:
    raise ZeroDivisionError("an application's defect")


class Raising:
    def __init__(self) -> None:
        raise RuntimeError("no device")

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None: ...

    def close(self) -> None: ...


class Leaving(Raising):
    def __init__(self) -> None:
        raise SystemExit("bye")


def leaving(task: Task, payload: bytes | None) -> None:
    raise SystemExit("bye")


def interrupting(task: Task, payload: bytes | None) -> None:
    raise KeyboardInterrupt


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")


def unspeakable(task: Task, payload: bytes | None) -> None:
    raise Unspeakable


def unencodable(task: Task, payload: bytes | None) -> None:
    raise ValueError("\ud800" * 1_000_000)


def exhausted(task: Task, payload: bytes | None) -> None:
    next(iter(()))


class Cancelling:
    modelled = False
    needs_payload = False

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        raise asyncio.CancelledError

    def close(self) -> None: ...


class Synchronous(Cancelling):
    def execute(self, task: Task, payload: bytes | None, duration: float) -> int:  # type: ignore[override]
        return 3


class NoApplication:
    """Has nothing that an application needs."""


@pytest.mark.parametrize("name", ["emulated", "busy", "matrix", f"{HERE}:quick"])
def test_what_is_created_is_an_application(name: str) -> None:
    application = create(name)
    assert isinstance(application, Application)
    application.close()
    application.close()


def test_names_lists_the_built_in_ones() -> None:
    assert names()[:3] == ("emulated", "busy", "matrix")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "known: emulated, busy, matrix"),
        ("no_such_module:f", "cannot be loaded"),
        (f"{HERE}:missing", "cannot be loaded"),
        (f"{HERE}:HERE", "not a class or function"),
        (f"{HERE}:NoApplication", "is not an application"),
        (
            f"{HERE}:Raising",
            r"cannot be made: RuntimeError: no device, at .*test_app.*:\d+ in __in",
        ),
        (f"{HERE}:Leaving", r"cannot be made: SystemExit: bye, at .*test_app.*:\d+ in __init__"),
        ("subprocess:Popen", "no method execute and no close"),
    ],
)
def test_what_cannot_be_an_application_is_refused(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        create(name)


@pytest.mark.parametrize(
    "name",
    [
        *("subprocess:Popen", "subprocess:run", "subprocess:call", "subprocess:getoutput"),
        *("os:system", "os:popen", "os:execv", "builtins:exec", "builtins:open", "shutil:rmtree"),
        *("sqlite3:Connection", "runpy:run_path", "threading:Thread", "os:environ.update"),
        *("pathlib:Path", "multiprocessing:Process", "functools:partial"),
    ],
)
def test_what_is_no_application_is_refused_before_it_is_called(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "called"
    for options in (
        {},
        {"args": ["touch", str(marker)]},
        {"database": str(marker)},
        {"path_name": str(marker)},
        {"file": str(marker), "mode": "w"},
    ):
        with pytest.raises(UsageError, match=r"is not an application|not a class or function"):
            create(name, options)
    assert not marker.exists()


def test_options_an_application_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match="does not take these options"):
        create("emulated", {"speed": 2})


def test_matrix_work_depends_on_the_payload() -> None:
    one, other = (task(i, size_bytes=2 * SIDE * SIDE, execution=1000) for i in (1, 2))
    assert work(one, payload_of(one)) == work(one, payload_of(one)) > 0
    assert work(one, payload_of(one)) != work(other, payload_of(other))
    assert work(one, None) == 0


async def test_matrix_executes_what_another_node_sent(tmp_path: Path) -> None:
    given = task(1, size_bytes=200_000)
    async with cluster(tmp_path) as network:
        spec = ApplicationSpec("matrix", {"limit": 2})
        await network.configure(
            plan(application=spec), "tests.edgenode.network:SendTo", destination=1
        )
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)
        assert ended.data["outcome"] == "succeeded"


async def test_busy_burns_cpu_for_the_modelled_time(tmp_path: Path) -> None:
    given = task(1, execution=800_000, deadline=10_000_000)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1, application=ApplicationSpec("busy")), "local")
        await network.start()
        used = time.process_time()
        await network.give(given)
        (ended,) = await network.ended(given)
        used = time.process_time() - used

        assert ended.data["outcome"] == "succeeded"
        started = next(r for r in network.history(1) if r.kind is RecordKind.EXECUTION_STARTED)
        assert ended.at - started.at == 800_000
        # Far more than waiting costs, and what a busy machine leaves to one of many.
        assert used > 0.05


async def test_a_function_takes_as_long_as_it_runs(tmp_path: Path) -> None:
    given = task(1, execution=5_000_000, deadline=10_000_000)
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(f"{HERE}:quick")
        await network.configure(plan(nodes=1, application=spec), "local")
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)
        assert ended.data["outcome"] == "succeeded"
        assert int(ended.data["elapsed"]) < 4_000_000


async def test_an_application_that_raises_loses_the_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = task(1)
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(f"{HERE}:failing")
        await network.configure(plan(nodes=1, application=spec), "local")
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)
    assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "execution")
    assert "an application's defect" in caplog.text
    assert str(ended.data["reason"]).startswith(
        f"application '{HERE}:failing' raised ZeroDivisionError"
    )
    assert "test_applications.py:" in str(ended.data["reason"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("leaving", "raised SystemExit: bye"),
        ("interrupting", "raised KeyboardInterrupt"),
        ("unspeakable", r"raised Unspeakable: \(its text cannot be shown\), at"),
        ("unencodable", "raised ValueError:? .*, at"),
        ("exhausted", "raised RuntimeError: it raised StopIteration, at"),
        ("Cancelling", "raised CancelledError, at"),
        ("Synchronous", r"execute\(\) returned 3 \(int\); it has to be async \(.*py:\d+\)"),
    ],
)
async def test_whatever_an_application_raises_costs_its_task_only(
    tmp_path: Path, name: str, told: str
) -> None:
    first, second = task(1), task(2)
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(f"{HERE}:{name}")
        await network.configure(plan(nodes=1, application=spec), "local")
        await network.start()
        for given in (first, second):
            await network.give(given)
            (ended,) = await network.ended(given)
            assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "execution")
            assert re.search(told, str(ended.data["reason"]))
            assert "test_applications.py:" in str(ended.data["reason"])


async def test_the_same_failure_is_logged_once_in_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(f"{HERE}:failing")
        await network.configure(plan(nodes=1, application=spec), "local")
        await network.start()
        for number in range(1, 5):
            await network.give(task(number))
            await network.ended(task(number))
    # gRPC's own poller may have one too, about the event loop of a test before this one.
    told = [each for each in caplog.records if each.exc_info and each.name.startswith("edgenode")]
    assert len(told) == 1


async def test_a_deadline_ends_what_an_application_does_not(tmp_path: Path) -> None:
    given = task(1, execution=10_000, deadline=50_000)
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(f"{HERE}:stuck")
        await network.configure(plan(nodes=1, application=spec), "local")
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)
        RELEASED.set()
        assert (ended.data["outcome"], ended.data["elapsed"]) == ("dropped", 50_000)


@pytest.mark.parametrize("application", ["emulated", f"{HERE}:quick"])
async def test_a_drawn_failure_ends_the_execution_at_its_instant(
    tmp_path: Path, application: str
) -> None:
    alpha = 100.0
    given = task(1, execution=100_000)
    after = failure_after(alpha, uniform(1, Purpose.EXECUTION_FATE, 0, given.id, 0))
    assert after < 100_000, "choose another seed"
    async with cluster(tmp_path, nodes=1) as network:
        spec = ApplicationSpec(application)
        await network.configure(plan(nodes=1, alpha=alpha, application=spec), "local")
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)
        started = next(r for r in network.history(1) if r.kind is RecordKind.EXECUTION_STARTED)
        assert ended.data["outcome"] == "execution_failed"
        assert ended.at - started.at == after
