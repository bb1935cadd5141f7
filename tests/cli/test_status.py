"""What ``testbed status`` shows of a run, without processes."""

from __future__ import annotations

import pytest

from testbed.cli import console
from testbed.cli.network import _add_run
from tests.rpc.test_operator import STATUS


def test_status_names_the_faults_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    facts = console.Rows(["TESTBED", "demo"])
    _add_run(facts, STATUS)
    console.show(facts)
    shown = " ".join(capsys.readouterr().out.split())
    assert "fault faults[0]: node-down, once in 1 episode" in shown
    assert "by themselves they degrade no run" in shown
