"""examples/faults.yaml: every entry happens, and every scheduler meets the same."""

from __future__ import annotations

from pathlib import Path

import testbed as tb

FILE = Path(__file__).resolve().parents[2] / "examples" / "faults.yaml"


def test_every_fault_happens_and_takes_effect() -> None:
    plan = tb.load(FILE)
    calm = tb.load(FILE, set={"faults": []})

    struck = tb.compare(plan, ["ratc", "local"])
    spared = tb.simulate(calm, "local")

    entries = {fault["entry"] for fault in struck["local"].summary.run.faults}
    assert entries == set(range(len(plan.plan.faults))) == set(range(5))
    assert [fault["id"] for fault in struck["ratc"].summary.run.faults] == [
        fault["id"] for fault in struck["local"].summary.run.faults
    ]
    assert struck["local"].success_rate < spared.success_rate
    assert struck["local"].outcomes["lost"] > 0
    assert spared.outcomes["lost"] == 0
    # The flash crowd adds tasks, and takes none away.
    assert len(struck["local"].tasks) > len(spared.tasks)
