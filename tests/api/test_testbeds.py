"""Testbeds brought up from Python: in a running event loop, interrupted, found by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import testbed as tb
from testbed.cli import main
from testbed.runtime.local import LocalRuntime

SMALL = {"nodes.count": 2, "slots.count": 10}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    # A command run in this process has chosen its home for good.
    tb.use_home(None)
    return tmp_path / "home"


async def test_it_works_where_an_event_loop_runs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tb.load("quickstart", set=SMALL)
    with tb.up(plan, "lab") as lab:
        capsys.readouterr()
        assert main.run(["ps", "--json"]) == 0
        assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["lab"]
        with tb.connect("lab") as same:
            assert len(same.nodes) == 2
        result = lab.run("local", episodes=1, label="mine").wait()
        assert "2 of 2 healthy" in lab._repr_html_()
        assert lab.log().runs(label="mine").ids == [result.id]
        with pytest.raises(tb.UsageError, match="run"):
            lab.set_scheduler("ratc")
        with pytest.raises(tb.UsageError, match="factor"):
            lab.inject_fault("slow-node", "1s", nodes=[0])

    assert LocalRuntime(home).names() == ()
    assert result.plan.scenario_hash == plan.hash
    assert len(result.decisions) == 20
    with pytest.raises(tb.UsageError, match="none is up"):
        tb.connect("lab")


def test_an_interrupted_block_leaves_nothing(home: Path) -> None:
    plan = tb.load("quickstart", set={**SMALL, "slots.count": 200})

    def interrupted() -> None:
        with tb.up(plan, "lab") as lab:
            for progress in lab.run("local", episodes=5).watch():
                if progress.generated:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert LocalRuntime(home).names() == ()
    [ended] = tb.open_log().runs()
    assert ended.state.value in ("stopped", "interrupted")


def test_a_run_that_is_waited_for_is_stopped_by_an_interrupt(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tb.load("quickstart", set={**SMALL, "slots.count": 200})
    with tb.up(plan, "lab") as lab:
        run = lab.run("local", episodes=5)
        seen = run.watch()
        next(seen)

        def interrupted() -> Iterator[object]:
            yield next(seen)
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "watch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.wait()

        status = lab.status().run
        assert status is not None
        assert status.progress.state == "stopped"


def test_what_cannot_be_is_refused(home: Path) -> None:
    with pytest.raises(tb.UsageError, match="local, kind, cluster"):
        tb.up("quickstart", runtime="cloud")
    with pytest.raises(tb.UsageError, match="a-z"):
        tb.up("quickstart", "My Lab")
    with pytest.raises(tb.UsageError, match="unknown scheduler"):
        tb.up(tb.load("quickstart", set={"scheduler": "nothing"}))
    assert LocalRuntime(home).names() == ()
