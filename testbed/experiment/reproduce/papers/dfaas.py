"""DFaaS: the experiment of its paper (figure 3), and what follows from its rules.

Ciavotta, Motterlini, Savi and Tundo, "DFaaS: Decentralized Function-as-a-Service for Federated Edge
Computing", IEEE CloudNet 2021. Three nodes serve 10, 20 and 30 requests per second; users send 50
per second to the first. The paper's nodes 1, 2, 3 are nodes 0, 1, 2 here. The released code splits
what a node can spare among its neighbours and enforces it, which the paper does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from testbed.experiment.reproduce.points import NETWORK
from testbed.experiment.reproduce.requests import By, Case, CaseResult, Check, Found, Statement

DFAAS: Final = "dfaas"
_SPLIT: Final = "dfaas-split"


def _users(*rates: int) -> str:
    listed = ", ".join(
        f"{{function: f, node: {node}, rate: {rate}/s}}" for node, rate in enumerate(rates) if rate
    )
    return f"users=[{listed}]"


_KILLED: Final = (
    "horizon.length=420s",
    "faults=[{kind: node-down, nodes: 2, at: 180s, for: 600s}]",
)
_STRANGER: Final = (
    "overlay.neighbours=[[1], [], []]",
    "functions.f.maxRate=[0/s, 20/s, 30/s]",
    "scheduler={name: fixed-shares, options: {shares: [0, 1, 0]}}",
)

FIGURE: Final = "full 50, 0, 0"
"""The case that the paper's figure 3 shows."""

_KILL, _KILL_ENFORCED = "node 2 killed", "node 2 killed, limits enforced"


def _offset(seconds: int) -> str:
    return f"offset {seconds} s"


def _period(seconds: int) -> str:
    return f"period {seconds} s"


_OFFSETS: Final = {0: 1200, 15: 1800, 30: 2400, 45: 3000}
_PERIODS: Final = {60: 2400, 30: 1200, 10: 400}
"""Refused requests by offset of the routers, and by their period with half of it as offset."""

SIMULATED: Final = (
    Case(FIGURE, DFAAS),
    Case("split 50, 0, 0", _SPLIT, (_users(50, 0, 0),)),
    Case("split 50, 10, 0", _SPLIT, (_users(50, 10, 0),)),
    Case("split 50, 30, 0", _SPLIT, (_users(50, 30, 0),)),
    Case("split 50, 50, 50", _SPLIT, (_users(50, 50, 50),)),
    Case("unknown sender", DFAAS, _STRANGER),
    *(Case(_offset(each), DFAAS, (f"routing.offset={each}s",)) for each in _OFFSETS),
    *(
        Case(_period(each), DFAAS, (f"routing.period={each}s", f"routing.offset={each // 2}s"))
        for each in _PERIODS
    ),
    Case(_KILL, DFAAS, _KILLED),
    Case(_KILL_ENFORCED, DFAAS, (*_KILLED, "overlay.enforceLimits=true")),
)
"""All cases of the simulator."""

QUICK: Final = (FIGURE, "split 50, 0, 0", "unknown sender", _KILL_ENFORCED)
"""Those of a quick run."""

_NETWORK, _QUICK_NETWORK = "real requests", "real requests, quick"
ON_NETWORK: Final = Case(
    _NETWORK,
    DFAAS,
    ("routing.period=30s", "routing.offset=15s", "horizon.length=150s"),
    NETWORK,
)
QUICK_ON_NETWORK: Final = Case(
    _QUICK_NETWORK,
    DFAAS,
    ("routing.period=10s", "routing.offset=5s", "horizon.length=40s", "overlay.expiry=30s"),
    NETWORK,
)


def _rates(case: str, source: int, first: int, until: int, **expected: float) -> Found:
    """Hold the answers of a part of a case against ``expected``, each within 1 per second."""

    def checks(results: Mapping[str, CaseResult]) -> Iterable[Check]:
        for name, rate in expected.items():
            by = _by(name)
            measured = results[case].per_second(source, by, first, until)
            yield Check(f"{case}, of node {source} by {_told(by)}, per second", measured, rate, 1)

    return checks


def _by(name: str) -> By:
    """Return who answered, of a keyword: ``node_1`` or ``status_503``."""
    kind, _, number = name.partition("_")
    return f"node {number}" if kind == "node" else number


def _told(by: By) -> str:
    return by if by.startswith("node") else f"nobody ({by})"


def _all(*found: Found) -> Found:
    return lambda results: [check for each in found for check in each(results)]


def _totals(case: str, **expected: float) -> Found:
    def checks(results: Mapping[str, CaseResult]) -> Iterable[Check]:
        for name, total in expected.items():
            by = _by(name)
            what = f"{case}, by {_told(by)} in {results[case].seconds} s"
            yield Check(what, results[case].total(by), total, total / 100)

    return checks


def _refused(expected: Mapping[str, int]) -> Found:
    def checks(results: Mapping[str, CaseResult]) -> Iterable[Check]:
        for case, total in expected.items():
            yield Check(f"{case}, 503", results[case].total("503"), total, total / 50)

    return checks


def _vector(text: str, case: str, *found: Found, source: str = "ours") -> Statement:
    return Statement(text, (case,), _all(*found), "paper" if source == "paper" else "ours")


_AFTER: Final = (61, 299)
"""Seconds after the first weights, which come at 60 s."""

STATEMENTS: Final[Sequence[Statement]] = (
    _vector(
        "After the first update, node 0 serves 10 requests per second, and the other 40 go to "
        "nodes 1 and 2 in the proportion of what they can spare: 16 and 24.",
        FIGURE,
        _rates(FIGURE, 0, *_AFTER, node_0=10, node_1=16, node_2=24),
        source="paper",
    ),
    _vector(
        "In the first minute node 0 serves 10 requests per second, and 40 are refused with 503.",
        FIGURE,
        _rates(FIGURE, 0, 0, 60, node_0=10, status_503=40),
        source="paper",
    ),
    _vector(
        "Once load is balanced, no more 503 occur.",
        FIGURE,
        lambda results: [
            Check("503 after 60 s", results[FIGURE].total("503", 60), 0, 0),
        ],
        source="paper",
    ),
    _vector(
        "In the 5 minutes the nodes serve 3000, 3840 and 5760 requests, and 2400 are refused.",
        FIGURE,
        _totals(FIGURE, node_0=3000, node_1=3840, node_2=5760, status_503=2400),
    ),
    _vector(
        "With spare rates that are split and enforced, as in the released code, nodes 1 and 2 "
        "serve half of what they can spare each: 10 and 15, and 15 are refused with 429.",
        "split 50, 0, 0",
        _rates("split 50, 0, 0", 0, *_AFTER, node_0=10, node_1=10, node_2=15, status_429=15),
    ),
    _vector(
        "With 10 per second at node 1 it can spare half as much.",
        "split 50, 10, 0",
        _rates("split 50, 10, 0", 0, *_AFTER, node_0=10, node_1=5, node_2=15, status_429=20),
        _rates("split 50, 10, 0", 1, *_AFTER, node_1=10),
    ),
    _vector(
        "With 30 per second at node 1, two nodes share what node 2 can spare.",
        "split 50, 30, 0",
        _rates("split 50, 30, 0", 0, *_AFTER, node_0=10, node_1=0, node_2=15, status_429=25),
        _rates("split 50, 30, 0", 1, *_AFTER, node_1=20, node_2=10),
    ),
    _vector(
        "With 50 per second at every node nobody can spare anything.",
        "split 50, 50, 50",
        _rates("split 50, 50, 50", 0, *_AFTER, node_0=10, status_503=40),
        _rates("split 50, 50, 50", 1, *_AFTER, node_1=20, status_503=30),
        _rates("split 50, 50, 50", 2, *_AFTER, node_2=30, status_503=20),
    ),
    _vector(
        "Requests of a node that the other one does not know are refused with 403.",
        "unknown sender",
        _rates("unknown sender", 0, *_AFTER, status_403=50),
    ),
    Statement(
        "Refusals end with the first weights, so they follow the offset of the routers.",
        tuple(map(_offset, _OFFSETS)),
        _refused({_offset(each): refused for each, refused in _OFFSETS.items()}),
    ),
    Statement(
        "With a higher update frequency, fewer 503 responses are generated.",
        tuple(map(_period, _PERIODS)),
        _refused({_period(each): refused for each, refused in _PERIODS.items()}),
        "paper",
    ),
    _vector(
        "The share of a node that is killed ends as 502 until what it said expires; by then, at "
        "300 s, all of it goes to the other node.",
        _KILL,
        _rates(_KILL, 0, 181, 299, node_0=10, node_1=16, status_502=24),
        _rates(_KILL, 0, 300, 420, node_0=10, node_1=40, status_502=0),
    ),
    _vector(
        "Where limits are enforced, the other node then serves the 20 that it had told, and "
        "refuses the rest with 429.",
        _KILL_ENFORCED,
        _rates(_KILL_ENFORCED, 0, 181, 299, node_0=10, node_1=16, status_502=24),
        _rates(_KILL_ENFORCED, 0, 300, 420, node_0=10, node_1=20, status_429=20),
    ),
)
"""About the cases of the simulator."""


def on_network(case: Case) -> tuple[Statement, ...]:
    """Return the statements about a case of the real network."""
    timetable, name = case.plan().timetable, case.name
    first = (timetable.offset + timetable.period // 2) // 1_000_000

    def shares(results: Mapping[str, CaseResult]) -> Iterable[Check]:
        result = results[name]
        for by, rate in (("node 1", 16.0), ("node 2", 24.0)):
            measured = result.per_second(0, by, first + 1, result.seconds - 1)
            yield Check(f"by {by} after the first weights, per second", measured, rate, rate / 20)

    def clients(results: Mapping[str, CaseResult]) -> Iterable[Check]:
        result = results[name]
        yield Check(
            "requests whose client saw another status than the node",
            result.disagreeing or 0,
            0,
            0,
        )
        yield Check("requests without a known answer", result.total("lost"), 0, 0)

    return (
        Statement(
            "Real HTTP requests are shared as in the paper: 16 and 24 per second.",
            (name,),
            shares,
            "paper",
        ),
        Statement(
            "Once load is balanced, no more 503 occur.",
            (name,),
            lambda results: [
                Check(
                    "503 from a second after the weights",
                    results[name].total("503", first + 1),
                    0,
                    0,
                )
            ],
            "paper",
        ),
        Statement("Clients and nodes count the same.", (name,), clients),
    )


class Chosen(NamedTuple):
    """What is asked for: its cases, the first of which is drawn, and the statements about them."""

    name: str
    title: str
    remark: str
    cases: tuple[Case, ...]
    statements: tuple[Statement, ...]


def chosen(*, network: bool, quick: bool) -> Chosen:
    """Return what is played with these options."""
    if network:
        case = QUICK_ON_NETWORK if quick else ON_NETWORK
        return Chosen(
            f"{DFAAS}-network",
            "DFaaS, figure 3: real HTTP requests per second by who answered them",
            "Three nodes with limits of 10, 20 and 30 requests per second, as processes of this "
            "machine; users send 50 real HTTP requests per second to node 0.",
            (case,),
            on_network(case),
        )
    cases = tuple(case for case in SIMULATED if not quick or case.name in QUICK)
    names = {case.name for case in cases}
    return Chosen(
        DFAAS,
        "DFaaS, figure 3: requests per second by who answered them",
        "Three nodes with limits of 10, 20 and 30 requests per second; users send 50 per second to "
        "node 0. The paper's nodes 1, 2 and 3 are nodes 0, 1 and 2 here. Simulated.",
        cases,
        tuple(each for each in STATEMENTS if names.issuperset(each.cases)),
    )
