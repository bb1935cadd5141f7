"""Verdicts, on results made up so that they are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from testbed.experiment.metrics import LATENCY
from testbed.experiment.reproduce.claims import (
    Cell,
    Cells,
    Claim,
    above,
    curve_never_below,
    falls,
    falls_more,
    judge,
    source_above,
)
from testbed.experiment.reproduce.definitions import FIGURES
from testbed.experiment.reproduce.points import LearningMoment, PointResult
from testbed.experiment.reproduce.results import Results
from testbed.experiment.reproduce.setting import Setting
from testbed.experiment.statistics import Interval, mean_interval

FIVE = (0.0, 0.1, -0.1, 0.05, -0.05)
"""How networks differ: much, and the same for every method."""


def results(
    rates: Mapping[tuple[str, str], float],
    networks: Sequence[float] = FIVE,
    noise: float = 0.001,
    figure: str = "fig5b",
) -> Results:
    """Success rates by setting and method on several networks; little noise between episodes."""
    measured = {
        at: {
            seed: PointResult(
                tuple(
                    rate + network + noise * math.sin(7 * episode + 3 * seed + len(at[1]))
                    for episode in range(6)
                )
            )
            for seed, network in enumerate(networks)
        }
        for at, rate in rates.items()
    }
    chosen = FIGURES[figure]
    shown = {x for x, _ in rates}
    return Results(chosen, tuple(s for s in chosen.settings if s.x in shown), measured)


def verdict(cells: Cells, found: Results, margin: float = 0.0) -> str:
    return Claim("as said", cells, margin).judge(found).verdict


def test_differences_are_seen_through_differences_of_networks() -> None:
    found = results({("0.6", "ratc"): 0.72, ("0.6", "rda"): 0.71})

    assert verdict(above("ratc", "rda"), found) == "agrees"
    assert verdict(above("rda", "ratc"), found) == "differs"
    rate = found.rate("0.6", "ratc")
    assert rate is not None
    assert rate.high - rate.low > 0.1


def test_what_intervals_cannot_tell_is_undecided() -> None:
    found = results({("0.6", "ratc"): 0.701, ("0.6", "rda"): 0.70}, noise=0.1)

    assert verdict(above("ratc", "rda"), found) == "undecided"


def test_methods_that_are_the_same_are_not_above_each_other() -> None:
    found = results({("0.6", "o2o"): 0.7, ("0.6", "rda"): 0.7}, noise=0.0)

    assert verdict(above("o2o", "rda"), found) == "differs"


def test_a_margin_forgives_a_little() -> None:
    found = results({("0.6", "offline"): 0.700, ("0.6", "ratc"): 0.705})

    assert verdict(above("offline", "ratc"), found) == "differs"
    assert verdict(above("offline", "ratc"), found, margin=0.01) == "agrees"


def test_one_wrong_comparison_is_enough_to_differ_and_is_named() -> None:
    rates = {("0.6", "o2o"): 0.8, ("0.6", "ratc"): 0.7, ("1.0", "o2o"): 0.6, ("1.0", "ratc"): 0.7}

    finding = Claim("best", above("o2o", "ratc")).judge(results(rates))

    assert finding.verdict == "differs"
    assert finding.sentence.startswith("Not in 1 of 2: at 1.0, over RATC: -10.0 points")


def test_without_points_nothing_is_said() -> None:
    finding = Claim("best", above("o2o", "rda")).judge(results({("0.6", "ratc"): 0.7}))

    assert finding.verdict == "not run"
    assert finding.document["comparisons"] == []


def test_what_is_not_computed_is_counted() -> None:
    found = results({("0.6", "o2o"): 0.8, ("0.6", "ratc"): 0.7})

    finding = Claim("best", above("o2o", "ratc", "rda", "random")).judge(found)

    assert finding.verdict == "agrees so far"
    assert finding.missing == ("at 0.6, over RDA", "at 0.6, over Random")
    assert finding.sentence.endswith("Not computed: 2 more.")


def test_only_the_named_settings_are_compared() -> None:
    rates = {("0.6", "rda"): 0.6, ("0.6", "ratc"): 0.7, ("1.0", "rda"): 0.7, ("1.0", "ratc"): 0.6}

    assert verdict(above("rda", "ratc", at=("1.0",)), results(rates)) == "agrees"
    assert verdict(above("ratc", "rda", at=("0.6",)), results(rates)) == "agrees"


def test_a_fall_is_tested_over_all_settings() -> None:
    rates = {
        **{(x, "ratc"): 0.9 - 0.1 * k for k, x in enumerate(("0.6", "0.8", "1.0"))},
        **{(x, "online-only"): 0.9 - 0.2 * k for k, x in enumerate(("0.6", "0.8", "1.0"))},
    }
    found = results(rates)

    assert verdict(falls("ratc", "online-only"), found) == "agrees"
    assert verdict(falls_more("online-only", "ratc"), found) == "agrees"
    assert verdict(falls_more("ratc", "online-only"), found) == "differs"
    assert verdict(falls("ratc"), results({("0.6", "ratc"): 0.9})) == "not run"
    line = found.fall("ratc")
    assert line is not None
    assert line.mean == pytest.approx(0.2, abs=0.002)


def test_a_step_up_between_the_ends_contradicts_a_fall() -> None:
    rates = {("0.6", "ratc"): 0.8, ("0.8", "ratc"): 0.9, ("1.0", "ratc"): 0.7}

    finding = Claim("falls", falls("ratc")).judge(results(rates))

    assert finding.verdict == "differs"
    assert "RATC from 0.6 to 0.8: -10.0 points" in finding.sentence
    assert [cell.only_against for cell in finding.cells] == [False, True, True]


def test_a_step_that_is_flat_does_not_hinder_a_fall() -> None:
    rates = {("0.6", "ratc"): 0.9, ("0.8", "ratc"): 0.8, ("1.0", "ratc"): 0.8}

    assert verdict(falls("ratc"), results(rates, noise=0.01)) == "agrees"


def test_a_fall_needs_a_point_at_every_setting() -> None:
    found = results({("0.6", "ratc"): 0.9, ("0.8", "rda"): 0.8, ("1.0", "ratc"): 0.8})

    finding = Claim("falls", falls("ratc")).judge(found)

    assert finding.missing == ("RATC, line through 3 settings, 0.6 to 1.0",)


def told(*differences: float) -> Cells:
    """Return comparisons whose differences on five networks are known, each around one mean."""
    spread = (-0.015, 0.0, 0.015, -0.005, 0.005)  # standard error 0.005
    return lambda results: [
        Cell(f"number {k}", mean_interval([mean + each for each in spread]))
        for k, mean in enumerate(differences)
    ]


def test_claims_that_are_judged_together_need_more_to_be_certain() -> None:
    found = results({("0.6", "ratc"): 0.7})
    near = Claim("near", told(0.02))  # t = 4, p = 0.016

    alone = near.judge(found)
    (together, *others) = judge([near, *[Claim("open", told(0.0))] * 9], found)

    assert alone.verdict == "agrees"
    assert alone.p_value == pytest.approx(0.0161, abs=1e-4)
    assert (together.verdict, together.among) == ("undecided", 10)
    assert together.p_value == pytest.approx(10 * alone.p_value)
    assert {each.verdict for each in others} == {"undecided"}
    assert together.sentence.endswith(
        "Not significant with the correction for many comparisons (p = 0.16)."
    )


def test_what_agrees_in_all_comparisons_needs_no_correction_for_their_number() -> None:
    found = results({("0.6", "ratc"): 0.7})

    assert verdict(told(*[0.02] * 20), found) == "agrees"


def test_one_of_many_comparisons_contradicts_only_with_the_correction() -> None:
    found = results({("0.6", "ratc"): 0.7})

    assert verdict(told(-0.02), found) == "differs"
    assert verdict(told(-0.02, *[0.1] * 9), found) == "undecided"
    assert verdict(told(-0.05, *[0.1] * 9), found) == "differs"


def test_what_happened_is_not_uncertain() -> None:
    found = with_curve(0.801, 0.81)

    finding, other = judge(
        [Claim("curve", curve_never_below("ratc")), Claim("near", told(0.02))], found
    )

    assert (finding.verdict, finding.among) == ("agrees", 1)
    assert math.isnan(finding.p_value)
    assert other.verdict == "agrees"


def test_sources_are_compared_across_settings() -> None:
    rates = {("ratc", "o2o"): 0.8, ("rda", "o2o"): 0.7, ("rda", "rda"): 0.75}
    found = results(rates, figure="fig4")

    assert verdict(source_above("o2o", "ratc", ("rda",)), found) == "agrees"
    assert verdict(above("o2o", "source"), found) == "differs"


def test_few_networks_say_nothing_of_others() -> None:
    few = results({("0.6", "ratc"): 0.7, ("0.6", "rda"): 0.69}, networks=(0.0, 0.1))

    assert few.unit == "episodes"
    gap = few.difference(("0.6", "ratc"), ("0.6", "rda"))
    assert gap is not None
    assert gap.count == 12
    assert results({("0.6", "ratc"): 0.7}).unit == "networks"


def test_differences_take_the_networks_that_both_have() -> None:
    found = results({("0.6", "ratc"): 0.8, ("0.6", "rda"): 0.7})
    partial = dict(found.measured)
    partial["0.6", "rda"] = {
        seed: each for seed, each in partial["0.6", "rda"].items() if seed != 1
    }

    gap = Results(found.figure, found.settings, partial).difference(("0.6", "ratc"), ("0.6", "rda"))

    assert gap is not None
    assert gap.count == 4
    assert gap.mean == pytest.approx(0.1, abs=0.001)


def test_what_is_not_on_all_networks_is_not_drawn_beside_what_is() -> None:
    found = results({("0.6", "ratc"): 0.72, ("0.6", "rda"): 0.71, ("1.0", "rda"): 0.6})
    partial = {at: dict(by_network) for at, by_network in found.measured.items()}
    del partial["0.6", "ratc"][1]
    some = Results(found.figure, found.settings, partial)

    assert set(some.comparable().measured) == {("0.6", "rda"), ("1.0", "rda")}
    assert some.incomplete == ("RATC at 0.6",)
    assert found.incomplete == ()
    assert found.comparable().measured == found.measured


def with_curve(*evaluations: float | None) -> Results:
    curve = tuple(LearningMoment(20 * k, None, rate) for k, rate in enumerate(evaluations))
    measured = PointResult((0.9, 0.9), curve, {"offline": 0.80, "ratc": 0.75})
    return Results(FIGURES["fig3"], FIGURES["fig3"].settings, {("default", "o2o"): {500: measured}})


def test_curves_are_held_against_offline_and_ratc() -> None:
    found = with_curve(0.801, 0.81, 0.79, 0.85, 0.86)

    assert verdict(curve_never_below("ratc"), found) == "agrees"
    assert verdict(curve_never_below("offline"), found, margin=0.005) == "differs"
    assert verdict(curve_never_below("offline", share=0.25), found, margin=0.005) == "agrees"
    assert verdict(curve_never_below("rda"), found) == "not run"


def test_the_offline_policy_is_not_held_against_itself() -> None:
    assert verdict(curve_never_below("offline"), with_curve(0.80)) == "not run"
    assert verdict(curve_never_below("offline"), with_curve(0.79, 0.81)) == "agrees"
    assert verdict(curve_never_below("ratc"), with_curve(0.74, 0.81)) == "differs"


def test_lower_is_better_where_the_objective_says_so() -> None:
    refused = {
        **{("60s", name): rate for name, rate in (("slack", 0.2), ("all-local", 0.5))},
        **{("90s", name): rate for name, rate in (("slack", 0.4), ("all-local", 0.9))},
    }
    of_tasks = results(refused)
    figure = replace(FIGURES["fig5b"], scenario="dfaas")
    settings = (Setting("60s"), Setting("90s"))
    found = replace(of_tasks, figure=figure, settings=settings)

    assert found.objective.name == "refused-rate"
    assert verdict(above("slack", "all-local"), found) == "agrees"
    assert verdict(above("all-local", "slack"), found) == "differs"
    assert verdict(falls("slack"), found) == "agrees"
    assert verdict(falls_more("all-local", "slack"), found) == "agrees"
    (first, *_) = Claim("as said", falls("slack")).judge(found).cells
    assert str(first).startswith("Slack, line through 2 settings, 60s to 90s: +20.0 points")


def test_comparisons_are_in_the_unit_of_the_objective() -> None:
    value = Interval(5, -12.5, -20.0, -5.0, 6.0)
    assert str(Cell("at 3", value, LATENCY)) == "at 3: -12.5 ms (-20.0 to -5.0)"


def test_the_lead_is_told_by_online_episodes() -> None:
    def curves(*evaluations: float | None) -> dict[int, PointResult]:
        # By network: the second one is 2 points below.
        return {
            seed: PointResult(
                (0.9, 0.9),
                tuple(
                    LearningMoment(20 * k, None, None if rate is None else rate - below)
                    for k, rate in enumerate(evaluations)
                ),
            )
            for seed, below in ((500, 0.0), (501, 0.02), (502, 0.01))
        }

    measured = {
        ("default", "o2o"): curves(0.80, None, 0.84, 0.85),
        ("default", "online-only"): curves(0.70, 0.75, 0.80, 0.85),
    }
    # Not evaluated there on one network: that moment is of other networks than the others.
    first = measured["default", "online-only"][500]
    measured["default", "online-only"][500] = replace(first, curve=first.curve[:-1])
    found = Results(FIGURES["fig3"], FIGURES["fig3"].settings, measured)

    lead = found.lead("default", "o2o", "online-only")

    assert {episodes: round(value.mean, 6) for episodes, value in lead.items()} == {
        0: 0.1,
        40: 0.04,
    }
    assert all(value.count == 3 for value in lead.values())
    assert found.lead("default", "o2o", "ratc") == {}
