from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import Problem, UsageError
from testbed.scenario.load import draw, dumps, load, loads, shipped, shipped_names, shipped_text
from testbed.scenario.plan import Plan
from testbed.scenario.plan import load as read_plan
from testbed.scenario.resolve import plan
from testbed.scenario.schema import Scenario

MINIMAL = """
apiVersion: edge-testbed/v1
kind: Scenario
metadata: {name: small}
nodes: {count: 3, cores: 4, clock: 3GHz, arrivalProbability: 0.5}
links: {rate: 10MB/s}
tasks: {size: 1000KB, complexity: 800, deadline: 1s}
slots: {count: 50, length: 100ms}
"""


def problems(text: str, overrides: Sequence[str] = ()) -> dict[str, Problem]:
    with pytest.raises(UsageError) as caught:
        loads(text, overrides)
    found = caught.value.problems
    assert found
    assert all(problem.seen for problem in found)
    assert len({(p.path, p.seen) for p in found}) == len(found)
    return {problem.path: problem for problem in found}


def with_values(**values: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(MINIMAL), **values})


# --- the whole file -----------------------------------------------------------------------------


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        """
        apiVersion: edge-testbed/v1
        kind: Scenarios
        nodes: {count: 3, cores: [1, 2], clock: 3Ghz, arivalProbability: 3, failureRate: -1}
        links: {rate: [[1MB/s, 0, null], [2]], overides: []}
        tasks: {size: {uniform: [2MB, 1MB]}, complexity: {normal: [1, 2]}, deadline: 4}
        slots:
        rules: {overload: {queueLength: 1, backlog: 1s}, dropHopeless: 1}
        seeds: one
        scheduler: {options: 3}
        colour: red
        """
    )
    assert set(found) == {
        "kind",
        "metadata",
        "nodes.cores",
        "nodes.clock",
        "nodes.arrivalProbability",
        "nodes.arivalProbability",
        "nodes.failureRate",
        "links.rate",
        "links.rate[0][2]",
        "links.rate[1]",
        "links.rate[1][0]",
        "links.overides",
        "tasks.size",
        "tasks.complexity",
        "tasks.deadline",
        "slots",
        "rules.overload",
        "rules.dropHopeless",
        "seeds",
        "scheduler.options",
        "colour",
    }
    assert "did you mean arrivalProbability?" in found["nodes.arivalProbability"].allowed
    assert "did you mean 3GHz?" in found["nodes.clock"].seen
    assert "metadata, nodes, links" in found["colour"].allowed
    assert found["rules.dropHopeless"].allowed == "allowed: true or false"
    assert found["nodes.cores"].seen == "2 values for 3 nodes"


@pytest.mark.parametrize(
    ("text", "path", "seen"),
    [
        ("", "", "the file is empty"),
        ("# only a comment\n", "", "the file is empty"),
        ("[1, 2]", "", "a list is not a scenario"),
        ("hello", "", "'hello' is not a scenario"),
        ("a: [1\nb: 2", "scenario:2:2", "not valid YAML"),
        ("a: 1\nb: 2\na: 3", "scenario:3:1", "'a' stands here a second time, first in line 1"),
        ("a:\n\t- 1", "scenario:2:1", "not valid YAML"),
        ("a: 1\n---\nb: 2", "scenario:2:1", "not valid YAML"),
        ("a: *b", "scenario:1:4", "not valid YAML"),
        ("a: !!python/object:os.system {}", "scenario:1:4", "not valid YAML"),
        ("a: !!int x", "scenario:1:4", "not valid YAML"),
        ("a: \x07", "scenario:1", "a control character"),
        ("a: &a [*a]", "scenario:1:4", "aliases that repeat or contain each other"),
        ("[" * 3000, "scenario:1:51", "nested too deeply"),
        ("apiVersion: edge-testbed/v2\nnodes: 3", "apiVersion", "'edge-testbed/v2'"),
        ("apiVersion: [1]", "apiVersion", "a list"),
    ],
)
def test_what_is_no_scenario_says_where_and_why(text: str, path: str, seen: str) -> None:
    found = problems(text)
    assert list(found) == [path]
    assert seen in found[path].seen


def test_aliases_cannot_blow_up_the_file() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (found,) = problems("\n".join(lines)).values()
    assert "aliases" in found.seen


def test_an_anchor_may_be_used_again() -> None:
    text = MINIMAL.replace(
        "rate: 10MB/s", "rate: &slow 10MB/s, overrides: [{from: 0, to: 1, rate: *slow}]"
    )
    made = loads(text)
    assert isinstance(made, Scenario)
    assert made.links.overrides[0].rate == 10e6


@pytest.mark.parametrize("key", ["1", "null", "true", "2024-01-01", '"\\ud800"', "'<list>'"])
def test_strange_keys_are_unknown_keys(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        loads(f"{MINIMAL}\n{key}: 3")
    str(caught.value).encode()


def test_a_missing_key_says_what_it_means() -> None:
    found = problems("apiVersion: edge-testbed/v1")
    assert found["kind"].allowed == "needed: Scenario"
    assert found["slots"].allowed == "needed: a mapping of count, length"


# --- files --------------------------------------------------------------------------------------


def test_a_path_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("\ufeff" + MINIMAL, "utf-8")
    assert load(path).metadata.name == "small"
    assert load(str(path), ["metadata.name=other"]).metadata.name == "other"


def test_a_file_without_ending_is_read_if_nothing_ships_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").write_text(MINIMAL)
    (tmp_path / "quickstart").write_text(MINIMAL)
    assert load("net").metadata.name == "small"
    assert load("quickstart").metadata.name == "quickstart"
    assert load("./quickstart").metadata.name == "small"


def test_an_unknown_name_lists_what_ships() -> None:
    with pytest.raises(UsageError, match="did you mean quickstart") as caught:
        load("quickstrt")
    assert "paper-simulation" in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "/", "a\0b.yaml", "", "x" * 5000, "x/y"])
def test_a_file_that_cannot_be_read_says_so(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(name)
    assert len(caught.value.problems) == 1


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert caught.value.problems == (
        Problem(f"{path}:2", "bytes that are not UTF-8", "allowed: UTF-8 text"),
    )


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(b"#" * (5 * 1024 * 1024))
    with pytest.raises(UsageError, match="too many"):
        load(path)


# --- overrides ----------------------------------------------------------------------------------


def test_overrides_change_single_values() -> None:
    made = loads(
        MINIMAL,
        [
            "nodes.count=20",
            "nodes.arrivalProbability.uniform=[0, 1]",
            "tasks.deadline = 2s",
            "rules.overload.backlog=1s",
            "fidelity.execution.share=5%",
            "scheduler.options.probes=3",
            "application=busy",
        ],
    )
    assert isinstance(made, Scenario)
    assert made.nodes.count == 20
    assert made.tasks.deadline.maximum == 2e6
    assert made.rules.overload.backlog == 1_000_000
    assert made.fidelity.execution.share == 0.05
    assert made.application.name == "busy"


def test_one_seed_can_be_set_and_the_others_stay() -> None:
    text = MINIMAL + "seeds: 7\nscheduler: rda\npayload: metadata\n"
    made = loads(text, ["seeds.topology=3", "scheduler.options.x=1e-3", "payload.chunk=8KB"])
    assert isinstance(made, Scenario)
    assert made.seeds.model_dump() == {
        "topology": 3,
        "workload": 7,
        "faults": 7,
        "schedulers": 7,
    }
    assert (made.scheduler.name, made.scheduler.options) == ("rda", {"x": 0.001})
    assert (made.payload.mode, made.payload.chunk) == ("metadata", 8_000)


def test_lists_are_entered_by_index() -> None:
    text = with_values(nodes={"count": 2, "capacity": ["1GHz"] * 2, "arrivalProbability": 1})
    made = loads(text, ["nodes.capacity.1=2GHz"])
    assert isinstance(made, Scenario)
    assert made.nodes.capacity == (1e9, 2e9)


@pytest.mark.parametrize(
    ("override", "path", "seen"),
    [
        ("nodes.count", "--set", "has no '='"),
        ("=3", "--set", "has no key"),
        ("nodes..count=3", "--set", "has no key"),
        ("nodes.count=[", "--set nodes.count:1:2", "not valid YAML"),
        ("nodes.count.x=3", "--set nodes.count.x", "which has no keys"),
        ("nodes.coutn=3", "nodes.coutn", "unknown key"),
        ("nodes.count=0", "nodes.count", "0 is out of range"),
        ("nodes.count=", "nodes.count", "nothing is not a whole number"),
        ("links.overrides.0.rate=3MB/s", "--set links.overrides.0.rate", "not an index"),
        ("seeds=-1", "seeds", "out of range"),
    ],
)
def test_a_wrong_override_is_one_problem(override: str, path: str, seen: str) -> None:
    text = MINIMAL.replace("rate: 10MB/s", "rate: 10MB/s, overrides: []")
    found = problems(text, [override])
    assert list(found) == [path]
    assert seen in found[path].seen


def test_wrong_overrides_are_reported_together_with_the_rest() -> None:
    found = problems(with_values(episodes=0), ["foo", "nodes.count=x"])
    assert set(found) == {"--set", "nodes.count", "episodes"}


# --- keys that depend on each other -------------------------------------------------------------

NODES: dict[str, Any] = {"count": 2, "cores": 4, "clock": "3GHz", "arrivalProbability": 0.5}


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"nodes": {**NODES, "clock": ["3GHz"]}}, "nodes.clock"),
        ({"nodes": {**NODES, "count": "2", "clock": ["3GHz"]}}, "nodes.clock"),
        ({"nodes": {**NODES, "count": 2.0, "clock": ["3GHz"]}}, "nodes.clock"),
        ({"nodes": {**NODES, "capacity": "3GHz"}}, "nodes"),
        ({"nodes": {**NODES, "clock": None}}, "nodes"),
        ({"nodes": {**NODES, "arrivalProbability": [0.5, 1.5]}}, "nodes.arrivalProbability[1]"),
        ({"links": {"rate": "0MB/s"}}, "links.rate"),
        ({"links": {"rate": {"uniform": ["1MB/s", "2MB"]}}}, "links.rate.uniform[1]"),
        ({"links": {"rate": {"choice": []}}}, "links.rate.choice"),
        ({"links": {"rate": {"uniform": ["1MB/s"]}}}, "links.rate.uniform[1]"),
        ({"links": {"rate": [["1MB/s"] * 3] * 2}}, "links.rate"),
        ({"links": {"rate": [[None, "1MB/s", 0]] + [["1MB/s"] * 3] * 2}}, "links.rate[0][2]"),
        (
            {"links": {"rate": "1MB/s", "overrides": [{"from": 0, "to": 3, "rate": "1MB/s"}]}},
            "links.overrides[0].to",
        ),
        (
            {"links": {"rate": "1MB/s", "overrides": [{"from": 1, "to": 1, "rate": "1MB/s"}]}},
            "links.overrides[0]",
        ),
        (
            {"links": {"rate": "1MB/s", "overrides": [{"from": 0, "to": 1}]}},
            "links.overrides[0]",
        ),
        (
            {
                "links": {
                    "rate": "1MB/s",
                    "overrides": [{"from": 0, "to": 1, "failureRate": 1}] * 2,
                }
            },
            "links.overrides[1]",
        ),
        ({"links": {"rate": "1MB/s", "controlDelay": "125ms"}}, "rules.probeTimeout"),
        (
            {
                "nodes": {"count": 1, "capacity": "3GHz", "arrivalProbability": 1},
                "rules": {"overload": {"queueLengthPer4Cores": 3}},
            },
            "rules.overload.queueLengthPer4Cores",
        ),
        ({"rules": {"overload": {}}}, "rules.overload"),
        ({"rules": {"executionQueueLimit": 0}}, "rules.executionQueueLimit"),
        ({"tasks": {"size": "1TB", "complexity": 1, "deadline": "1s"}}, "tasks.size"),
        ({"tasks": {"size": "1GB", "complexity": 2000, "deadline": "1s"}}, "tasks"),
        ({"tasks": {"size": "1B", "complexity": 0.01, "deadline": "1s"}}, "tasks.complexity"),
        ({"tasks": {"size": ["1B"], "complexity": 1, "deadline": "1s"}}, "tasks.size"),
        ({"metadata": {"name": "No Spaces"}}, "metadata.name"),
        ({"metadata": {"name": ""}}, "metadata.name"),
        ({"payload": "text"}, "payload"),
        ({"payload": {"mode": "text"}}, "payload.mode"),
        ({"scheduler": {"name": "ratc", "options": {1: 2}}}, "scheduler.options[1]"),
        ({"scheduler": {"name": "ratc", "options": {"a": {1: 2}}}}, "scheduler.options"),
        ({"scheduler": 3}, "scheduler"),
        ({"storage": ""}, "storage"),
        ({"timeScale": 0}, "timeScale"),
    ],
)
def test_each_mistake_is_one_problem_at_its_place(values: dict[str, Any], path: str) -> None:
    assert list(problems(with_values(**values))) == [path]


KEYS = (
    *("nodes", "links", "tasks", "slots", "rules", "seeds", "scheduler", "metadata", "name"),
    *("count", "cores", "clock", "rate", "overrides", "from", "to", "uniform", "choice"),
    *("overload", "queueLength"),
)


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inside: (
            st.lists(inside, max_size=4)
            | st.dictionaries(
                st.sampled_from(KEYS) | st.text(max_size=4),
                inside,
                max_size=5,
            )
        ),
        max_leaves=30,
    )
)
def test_any_data_is_read_or_refused_with_a_usage_error(data: Any) -> None:
    if isinstance(data, dict):
        data["apiVersion"] = "edge-testbed/v1"
    text = yaml.safe_dump(data, allow_unicode=True)
    with pytest.raises(UsageError) as caught:
        loads(text, ["nodes.count=3"])
    str(caught.value).encode()


@given(text=st.text(max_size=60))
def test_any_text_is_refused_with_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        loads(text)


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every container of ``data`` with each of its keys or indices."""
    keys = list(data) if isinstance(data, dict) else range(len(data))
    found = [(data, key) for key in keys]
    for key in keys:
        if isinstance(data[key], dict | list):
            found += places(data[key])
    return found


TASKS = [name for name in shipped_names() if "links:" in shipped_text(name)]
REQUESTS = [name for name in shipped_names() if name not in TASKS]

SCRAPS: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    3,
    0.5,
    1e300,
    "",
    "x",
    "3GHz",
    "0MB/s",
    "2s",
    "50%",
    [],
    {},
    [1],
]


@given(data=st.data())
def test_a_changed_scenario_is_refused_or_makes_a_plan(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(TASKS))
    changed = yaml.safe_load(dumps(load(name, ["nodes.count=3", "seeds=1"])))
    changed["links"]["overrides"] = [{"from": 0, "to": 1, "rate": "1MB/s", "failureRate": 0}]
    for _ in range(data.draw(st.integers(1, 3))):
        place, key = data.draw(st.sampled_from(places(changed)))
        place[key] = data.draw(st.sampled_from(SCRAPS))
    try:
        made = plan(loads(yaml.safe_dump(changed)))
    except UsageError:
        return
    assert Plan.from_json(made.to_json()) == made
    assert min(made.topology.capacity_hz) >= 1
    assert made.topology.size == len(made.topology.link_rate)
    assert all(
        made.topology.link_rate[i][j] >= 1
        for i in range(made.topology.size)
        for j in range(made.topology.size)
        if i != j
    )


@given(data=st.data())
def test_a_changed_scenario_of_requests_is_refused_or_makes_a_plan(data: st.DataObject) -> None:
    changed = yaml.safe_load(dumps(load(data.draw(st.sampled_from(REQUESTS)))))
    changed["faults"] = [{"kind": "node-down", "nodes": [1], "at": "2s", "for": "1s"}]
    for _ in range(data.draw(st.integers(1, 3))):
        place, key = data.draw(st.sampled_from(places(changed)))
        place[key] = data.draw(st.sampled_from([*SCRAPS, "20/s", "all", 7]))
    try:
        made = draw(loads(yaml.safe_dump(changed)))
    except UsageError:
        return
    assert read_plan(made.to_json()) == made


# --- what ships, and what is written ------------------------------------------------------------


def test_the_shipped_scenarios_are_listed_with_descriptions() -> None:
    assert [name for name, _ in shipped()][:3] == [
        "quickstart",
        "paper-simulation",
        "paper-testbed",
    ]
    assert all(description for _, description in shipped())


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_text_is_the_scenario_with_comments(name: str) -> None:
    text = shipped_text(name)
    assert text.startswith("#")
    assert loads(text) == load(name)
    assert load(name).metadata.name == name


@pytest.mark.parametrize("name", TASKS)
def test_what_is_written_reads_back_equal(name: str) -> None:
    scenario = load(name, ["links.overrides=[{from: 0, to: 1, failureRate: 0.123456789}]"])
    assert loads(dumps(scenario)) == scenario


def test_explicit_values_are_written_and_read_back_equal() -> None:
    scenario = loads(
        with_values(
            nodes={"count": 2, "capacity": ["1.1GHz", "2GHz"], "arrivalProbability": [0.1, "7%"]},
            links={"rate": [[None, "3.3MB/s"], ["1MB/s", 0]], "controlDelay": "1500us"},
            tasks={"size": {"choice": ["1KB", "1.5KB"]}, "complexity": 0.1, "deadline": "1.5s"},
            rules={"overload": {"backlog": "250ms"}, "executionQueueLimit": 4},
            scheduler={"name": "mine:Own", "options": {"a": None, "b": [1, None, {"c": 0.1}]}},
        )
    )
    assert loads(dumps(scenario)) == scenario


def test_lengths_are_not_held_against_a_count_that_is_wrong_itself() -> None:
    with pytest.raises(UsageError) as caught:
        loads(with_values(nodes={"count": 0, "cores": [4, 8], "clock": "3GHz"}))
    assert "nodes.count" in [problem.path for problem in caught.value.problems]
    assert "nodes.cores" not in [problem.path for problem in caught.value.problems]


def test_there_is_no_text_of_an_unknown_scenario() -> None:
    with pytest.raises(UsageError):
        shipped_text("../plan")
