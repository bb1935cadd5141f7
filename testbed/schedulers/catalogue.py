"""Every method that comparisons show: what it is called, what it knows, where it runs.

One table for registry, commands, experiments and figures. A scheduler, for whichever hook, is added
with a file of its own and a line here; docs/schedulers.md has a row for each. Methods of other
packages, which are not listed, are shown by their own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from testbed.model.hook import PLACE
from testbed.model.serving.route import ROUTE

Kind: TypeAlias = Literal["scheduler", "policy", "bound"]
"""``scheduler``: fixed rules. ``policy``: a neural network, which ``drl`` runs on nodes. ``bound``:
nothing that decides, but what can be reached at most."""

Group: TypeAlias = Literal["paper", "equal", "asking", "beyond", "limit", "other"]
"""``paper``: what the paper compares. ``equal``: what it lacks, baselines with the same overload
bits that the mask of the learned policies uses. ``asking``: what it lacks too, the usual baselines
of load balancing, which ask peers for their backlogs. ``beyond``: the policy that ships with this
toolkit. ``limit``: knows what no scheduler can know. ``other``: in no figure of the paper."""

Role: TypeAlias = Literal["reference", "baseline", "named"]
"""``reference``: what a policy is held against unless others are named. ``baseline``: in the
comparison of every experiment too. ``named``: shown where it is named or learned."""

_BITS: Final = "overload bits"


class Style(NamedTuple):
    """Line and marker of a method in figures: a number in their palette (None: grey), and
    matplotlib's names of marker and line."""

    colour: int | None = None
    marker: str = "."
    line: str = "-"


PLAIN: Final = Style()


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the catalogue.

    ``label`` is what figures call it, ``knows`` what it knows of other nodes when it decides.
    ``hook`` names the kind of decision that it makes (``testbed.model.hooks``).
    ``target`` (``module:Class``) is the scheduler that nodes make by this name, empty where there
    is none. ``on_nodes`` is False for what only the simulator can run.
    """

    name: str
    label: str
    knows: str = ""
    group: Group = "other"
    role: Role = "named"
    kind: Kind = "scheduler"
    target: str = ""
    on_nodes: bool = True
    style: Style = PLAIN
    hook: str = PLACE

    @property
    def asks_bits(self) -> bool:
        """Whether it asks all peers for their overload bit, so that its log contains the mask."""
        return self.knows.startswith(_BITS)


def _policy(
    name: str,
    label: str,
    group: Group,
    style: Style,
    role: Role = "named",
    on_nodes: bool = True,
) -> Method:
    return Method(name, label, _BITS, group, role, "policy", on_nodes=on_nodes, style=style)


def _scheduler(
    name: str, label: str, knows: str, group: Group, role: Role, target: str, style: Style
) -> Method:
    return Method(
        name, label, knows, group, role, target=f"testbed.schedulers.{target}", style=style
    )


def _router(name: str, label: str, knows: str, target: str) -> Method:
    return Method(name, label, knows, target=f"testbed.schedulers.{target}", hook=ROUTE)


_ALL: Final = (
    _policy("o2o", "O2O-DRL", "paper", Style(0, "o")),
    _policy("offline", "Offline only", "paper", Style(1, "s")),
    # Learning from nothing would take too many episodes on nodes.
    _policy("online-only", "Online only", "paper", Style(2, "^"), on_nodes=False),
    _scheduler("ratc", "RATC", "2 probes", "paper", "reference", "ratc:Ratc", Style(3, "D")),
    _scheduler("rda", "RDA", "own queue, 2 probes", "paper", "reference", "rda:Rda", Style(4, "v")),
    _scheduler("random", "Random", "nothing", "paper", "baseline", "random:Random", Style(5, "x")),
    _scheduler("local", "Local", "nothing", "other", "baseline", "local:Local", PLAIN),
    _scheduler(
        "ratc-masked",
        "RATC, masked",
        f"{_BITS}, 2 probes",
        "equal",
        "reference",
        "ratc_masked:RatcMasked",
        Style(3, "D", "--"),
    ),
    _scheduler(
        "rda-masked",
        "RDA, masked",
        f"{_BITS}, 2 probes",
        "equal",
        "reference",
        "rda_masked:RdaMasked",
        Style(4, "v", "--"),
    ),
    _scheduler(
        "local-or-reliable",
        "Local or reliable",
        _BITS,
        "equal",
        "reference",
        "local_or_reliable:LocalOrReliable",
        Style(7, "P", "--"),
    ),
    _scheduler(
        "two-choice",
        "Two choices",
        "2 probes",
        "asking",
        "reference",
        "two_choice:TwoChoice",
        Style(2, "<", ":"),
    ),
    _scheduler(
        "least-completion",
        "Least completion",
        "probes of all",
        "asking",
        "reference",
        "least_completion:LeastCompletion",
        Style(5, ">", "--"),
    ),
    _scheduler(
        "priced", "Priced", "probes of all", "other", "named", "priced:Priced", Style(6, "^", ":")
    ),
    _router("slack", "Slack", "what neighbours say", "slack:Slack"),
    _router("all-local", "All local", "nothing", "all_local:AllLocal"),
    _router("fixed-shares", "Fixed shares", "nothing", "fixed_shares:FixedShares"),
    Method("drl", "DRL", _BITS, kind="policy", target="testbed.schedulers.drl:Drl"),
    _policy("untrained", "Untrained, masked", "equal", Style(None, "x", "--"), "baseline"),
    _policy("per-destination", "Per-destination", "beyond", Style(7, "*"), "baseline"),
    Method("central", "Central", "all states", role="baseline", on_nodes=False),
    Method("central-reject", "Central, refusing", "all states", on_nodes=False),
    Method(
        "oracle",
        "Oracle",
        "all states and fates",
        "limit",
        "baseline",
        on_nodes=False,
        style=Style(None, "_", ":"),
    ),
    # The share of tasks that would succeed with the network to themselves.
    Method("bound", "Bound", "upper bound", "limit", kind="bound", style=Style(None, "", ":")),
)

METHODS: Final[Mapping[str, Method]] = MappingProxyType({each.name: each for each in _ALL})
"""By name, in the order of tables and legends."""


def targets(hook: str) -> Mapping[str, str]:
    """Return what nodes can make for a hook: ``module:Class`` by name."""
    return MappingProxyType(
        {name: each.target for name, each in METHODS.items() if each.target and each.hook == hook}
    )


TARGETS: Final[Mapping[str, str]] = targets(PLACE)
"""The schedulers that nodes can make: ``module:Class`` by name."""

SIMULATOR_ONLY: Final = tuple(
    name for name, each in METHODS.items() if each.kind == "scheduler" and not each.on_nodes
)
"""Schedulers that only the simulator has: they use information that nodes do not have."""

REFERENCES: Final = tuple(name for name, each in METHODS.items() if each.role == "reference")
"""The heuristics that a policy is held against unless others are named."""

EQUALS: Final = tuple(name for name in REFERENCES if METHODS[name].group == "equal")
"""Those of them that know the overload bits, as a policy does."""

BASELINES: Final = tuple(name for name, each in METHODS.items() if each.role != "named")
"""The methods that every experiment compares its policies with."""

HEURISTICS: Final = tuple(name for name in BASELINES if name in TARGETS)
"""Those of them that are fixed rules of nodes."""


def method(name: str) -> Method:
    """Return the row of a method; one by its own name for what is not in the catalogue.

    ``drl:ID``, as the task log calls the scheduler of a policy, knows what ``drl`` knows.
    """
    if name in METHODS:
        return METHODS[name]
    if name.startswith("drl:"):
        return replace(METHODS["drl"], name=name, label=name)
    return Method(name, name)


def label(name: str) -> str:
    """Return what figures and tables call a method."""
    return method(name).label
