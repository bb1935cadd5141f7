"""The comparison of turns and refusal."""

from __future__ import annotations

import pytest

from testbed.experiment.per_destination.order import VARIANTS, Variant, compare_order, network
from testbed.model.per_destination import NAME, STATE_NAME
from testbed.model.scarcity import offered_load
from testbed.policies import shipped
from testbed.sim.engine.policies import weights_of


def test_variants_of_a_network_differ_in_turns_and_refusal_alone() -> None:
    plans = {variant: network("quickstart", 80, variant) for variant in VARIANTS}
    for variant, plan in plans.items():
        assert (plan.rules.stagger > 0) is variant.turns
        assert plan.rules.reject is variant.refusing
        assert plan.topology == plans[Variant(False, False)].topology
        assert plan.workload == plans[Variant(False, False)].workload


def test_a_network_has_the_load_that_is_asked_for() -> None:
    plan = network("quickstart", 80, Variant(turns=True, refusing=False), 1.4)
    assert offered_load(plan.topology, plan.workload) == pytest.approx(1.4)


def test_every_method_is_compared_with_itself_in_each_way() -> None:
    known = {name: weights_of(shipped(name)) for name in (NAME, STATE_NAME)}
    (found,) = compare_order(known, [80, 81], 2, ["quickstart"]).values()
    rates, differences = found["success_rate"], found["differences"]
    usual = {"least-completion", "priced", "central", NAME, STATE_NAME}
    assert set(rates["at once"]) == set(rates["in turns"]) == usual
    refusing = {"central-reject", "priced", STATE_NAME}
    assert set(rates["at once, refusing"]) == set(rates["in turns, refusing"]) == refusing
    gain = rates["in turns"]["least-completion"] - rates["at once"]["least-completion"]
    assert differences["turns: least-completion"]["difference"] == pytest.approx(gain, abs=2e-4)
    lost = rates["at once, refusing"]["central-reject"] - rates["at once"]["central"]
    refused = differences["refusing: central-reject, at once"]
    assert refused["difference"] == pytest.approx(lost, abs=2e-4)
    assert refused["low"] <= refused["difference"] <= refused["high"]
    above = rates["in turns, refusing"]["priced"] - rates["in turns, refusing"]["central-reject"]
    shown = differences["in turns, refusing: priced above central-reject"]
    assert shown["difference"] == pytest.approx(above, abs=2e-4)
