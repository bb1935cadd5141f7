"""The parameter that each figure of the paper varies, and the results that the paper reports.

The claims are the paper's in our own words, each made so that numbers can decide it. Claims marked
"ours" are not the paper's: they hold its result against baselines that know as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.experiment.reproduce.claims import (
    Claim,
    above,
    curve_never_below,
    falls,
    falls_more,
    source_above,
)
from testbed.experiment.reproduce.methods import (
    ASKING,
    EQUAL,
    METHODS,
    O2O,
    OFFLINE,
    ONLINE_ONLY,
    PAPER,
)
from testbed.experiment.reproduce.setting import Setting

Kind: TypeAlias = Literal["curve", "sources", "sweep"]
OTHERS: Final = tuple(name for name in PAPER if name != O2O)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the paper. ``light`` are the settings of a quick run."""

    name: str
    title: str
    section: str
    kind: Kind
    scenario: str
    x_label: str
    settings: tuple[Setting, ...]
    light: tuple[str, ...]
    claims: tuple[Claim, ...]
    methods: tuple[str, ...] = tuple(METHODS)
    remark: str = ""


_BEST: Final = Claim(
    "O2O-DRL has the highest success rate of all methods of the paper, at every setting.",
    above(O2O, *OTHERS),
)
_EQUALS: Final = Claim(
    "O2O-DRL is above every baseline that knows the same overload bits.",
    above(O2O, *EQUAL),
    source="ours",
)
_ASKING: Final = Claim(
    "O2O-DRL is above the usual baselines that ask peers for their backlogs: the better of two, "
    "and the best of all.",
    above(O2O, *ASKING),
    source="ours",
)


def _swept(key: str, low: str, highs: tuple[str, ...], unit: str = "") -> tuple[Setting, ...]:
    return tuple(
        Setting(high, (f"{key}={{uniform: [{low}{unit}, {high}{unit}]}}",)) for high in highs
    )


_FIG3: Final = Figure(
    name="fig3",
    title="Learning curves of O2O-DRL and Online only",
    section="V-C",
    kind="curve",
    scenario="paper-simulation",
    x_label="setting",
    settings=(Setting("default"),),
    light=("default",),
    claims=(
        Claim(
            "O2O-DRL converges to a better policy than learning online from nothing.",
            above(O2O, ONLINE_ONLY),
        ),
        Claim("Fine-tuning online improves on the offline policy.", above(O2O, OFFLINE)),
        # That the first online evaluation is where the offline phase ended is no claim: both are
        # the same policy on the same episodes.
        Claim(
            "Performance does not fall at the beginning of the fine-tuning: in its first quarter "
            "no policy after an update is below the offline policy by more than noise (half a "
            "point).",
            curve_never_below(OFFLINE, share=0.25),
            margin=0.005,
        ),
        Claim(
            "No cold start: no evaluation during fine-tuning is below RATC.",
            curve_never_below("ratc"),
            source="ours",
        ),
        _EQUALS,
        _ASKING,
    ),
)

_FIG4: Final = Figure(
    name="fig4",
    title="Success rate by the heuristic whose logs are learned from",
    section="V-D",
    kind="sources",
    scenario="paper-simulation",
    x_label="logs of",
    settings=tuple(Setting(name, source=name) for name in ("ratc", "rda", "random")),
    light=("ratc", "rda", "random"),
    claims=(
        Claim(
            "O2O-DRL from logs of RATC is better than from logs of RDA or Random.",
            source_above(O2O, "ratc", ("rda", "random")),
        ),
        Claim(
            "The offline policy from logs of RATC is better than from logs of Random.",
            source_above(OFFLINE, "ratc", ("random",)),
            source="ours",
        ),
        Claim(
            "Even from logs of Random, the poorest of them, a relatively good policy is learned: "
            "better than Random itself.",
            above(O2O, "random", at=("random",)),
        ),
        Claim(
            "Learning improves on each heuristic: O2O-DRL is above the one whose logs it had.",
            above(O2O, "source"),
        ),
    ),
)

_FIG5A: Final = Figure(
    name="fig5a",
    title="Success rate by the largest task size",
    section="V-E",
    kind="sweep",
    scenario="paper-simulation",
    x_label="largest task size, KB",
    settings=_swept("tasks.size", "1000", ("6000", "7000", "8000", "9000", "10000"), "KB"),
    light=("6000", "8000", "10000"),
    claims=(
        _BEST,
        Claim("The success rate of every method falls as tasks grow.", falls(*PAPER)),
        Claim(
            "At sizes up to 10000 KB, learning online from nothing ends below RATC.",
            above("ratc", ONLINE_ONLY, at=("10000",)),
        ),
        _EQUALS,
        _ASKING,
    ),
)

_FIG5B: Final = Figure(
    name="fig5b",
    title="Success rate by the largest arrival probability",
    section="V-F",
    kind="sweep",
    scenario="paper-simulation",
    x_label="largest arrival probability",
    settings=_swept("nodes.arrivalProbability", "0", ("0.6", "0.7", "0.8", "0.9", "1.0")),
    light=("0.6", "0.8", "1.0"),
    claims=(
        _BEST,
        Claim("The success rate of every method falls as more tasks arrive.", falls(*PAPER)),
        Claim(
            "Under light load, arrivals in [0, 0.6], RATC is better than RDA: reliability counts.",
            above("ratc", "rda", at=("0.6",)),
        ),
        Claim(
            "Under heavy load, arrivals in [0, 1], RDA is better than RATC: delay counts.",
            above("rda", "ratc", at=("1.0",)),
        ),
        Claim(
            "Online only suffers most from load: it falls further than O2O-DRL.",
            falls_more(ONLINE_ONLY, O2O),
        ),
        Claim(
            "Under heavy load, the logs of RATC make Offline only better than Online only.",
            above(OFFLINE, ONLINE_ONLY, at=("1.0",)),
        ),
        _EQUALS,
        _ASKING,
    ),
)

_FIG5C: Final = Figure(
    name="fig5c",
    title="Success rate by the largest execution failure rate",
    section="V-G",
    kind="sweep",
    scenario="paper-simulation",
    x_label="largest failure rate, 1/s",
    settings=_swept("nodes.failureRate", "0", ("0.1", "0.15", "0.2", "0.25", "0.3")),
    light=("0.1", "0.2", "0.3"),
    claims=(
        _BEST,
        Claim("The success rate of every method falls as nodes fail more often.", falls(*PAPER)),
        Claim(
            "O2O-DRL is above Offline only and Online only at all failure rates.",
            above(O2O, OFFLINE, ONLINE_ONLY),
        ),
        _EQUALS,
        _ASKING,
    ),
)

_FIG6: Final = Figure(
    name="fig6",
    title="Success rate by the number of nodes",
    section="V-H",
    kind="sweep",
    scenario="paper-simulation",
    x_label="number of nodes",
    settings=tuple(Setting(n, (f"nodes.count={n}",)) for n in ("10", "15", "20", "25", "30")),
    light=("10", "20", "30"),
    claims=(
        _BEST,
        Claim(
            "Without the guide of a heuristic, Online only ends below O2O-DRL.",
            above(O2O, ONLINE_ONLY),
        ),
        Claim("Fine-tuning online improves on Offline only.", above(O2O, OFFLINE)),
        Claim("Offline only, learned from RATC, does well: above RATC.", above(OFFLINE, "ratc")),
        _EQUALS,
        _ASKING,
    ),
    remark="The paper's text names no numbers of nodes; these are ours.",
)

_FIG8: Final = Figure(
    name="fig8",
    title="Success rate on the testbed by the largest task size",
    section="VI-C",
    kind="sweep",
    scenario="paper-testbed",
    x_label="largest task size, KB",
    settings=_swept("tasks.size", "500", ("1000", "1500", "2000", "2500", "3000"), "KB"),
    light=("1000", "2000", "3000"),
    claims=(
        _BEST,
        Claim("The success rate of every method falls as tasks grow.", falls(*PAPER)),
        Claim(
            "With a hundredth of the logs, Offline only still learns a good policy: not below "
            "RATC by more than a point.",
            above(OFFLINE, "ratc"),
            margin=0.01,
        ),
        _EQUALS,
        _ASKING,
    ),
    remark="The paper ran this on its testbed. Simulated, it is the same scenario with probes that "
    "take no time; with --network it runs on real nodes, without Online only and Oracle.",
)

FIGURES: Final[Mapping[str, Figure]] = MappingProxyType(
    {each.name: each for each in (_FIG3, _FIG4, _FIG5A, _FIG5B, _FIG5C, _FIG6, _FIG8)}
)
"""By name, in the order of the paper."""

ON_NETWORK: Final = "fig8"
"""The figure that the paper made on its testbed."""

ALL: Final = "all"


def figures(names: tuple[str, ...]) -> tuple[Figure, ...]:
    """Return the figures of these names, each once, in the paper's order; ``all`` is all of them.

    Raises: UsageError: a name that is none.
    """
    unknown = [name for name in names if name != ALL and name not in FIGURES]
    if unknown:
        known = ", ".join((*FIGURES, ALL))
        raise UsageError(
            "unknown figure", [Problem("FIGURE", repr(name), f"one of {known}") for name in unknown]
        )
    return tuple(each for name, each in FIGURES.items() if name in names or ALL in names)
