"""Names, options, entry points and the messages for what is not there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pytest

from testbed.errors import UsageError
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.schedulers import registry
from testbed.testing.schedulers import situation

CONTEXT = situation(3, 0).context


class Own:
    """Always node 1.

    Only for these tests.
    """

    OPTIONS: ClassVar = {"bias": "nothing in particular"}

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "own"
        self.options = context.options

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(1)


RAISED: BaseException = ValueError("no")


class Hapless:
    name = "hapless"

    def __init__(self, context: SchedulerContext) -> None:
        raise RAISED

    def decide(self, observation: Observation) -> Decision:
        return Decision(0)


def make_none(context: SchedulerContext) -> object:
    return NoScheduler(context)


class NoScheduler:
    def __init__(self, context: SchedulerContext) -> None: ...


BASELINES = (
    "local",
    "random",
    "ratc",
    "rda",
    "ratc-masked",
    "rda-masked",
    "local-or-reliable",
    "two-choice",
    "least-completion",
    "priced",
)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_of_the_model_can_be_made_and_described(name: str) -> None:
    assert registry.create(name, CONTEXT).name == name
    assert name in registry.names()


def test_every_name_is_described_in_a_sentence() -> None:
    assert all(registry.describe(name).endswith(".") for name in registry.names())


def test_module_and_class_name_a_scheduler_of_ones_own() -> None:
    made = registry.create(f"{__name__}:Own", CONTEXT, {"bias": 3})
    assert isinstance(made, Own)
    assert made.options == {"bias": 3}
    assert registry.describe(f"{__name__}:Own") == "Always node 1."


def test_an_entry_point_names_a_scheduler_of_another_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def entry_points(group: str) -> list[metadata.EntryPoint]:
        assert group == "edge_testbed.schedulers"
        return [
            metadata.EntryPoint("own", f"{__name__}:Own", group),
            metadata.EntryPoint("ratc", f"{__name__}:Own", group),
        ]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    registry._entry_points.cache_clear()
    try:
        assert registry.names()[-1] == "own"
        assert registry.names().count("ratc") == 1
        assert isinstance(registry.create("own", CONTEXT), Own)
        # A built-in name stays what it is.
        assert not isinstance(registry.create("ratc", CONTEXT), Own)
    finally:
        monkeypatch.undo()
        registry._entry_points.cache_clear()


@pytest.mark.parametrize(("name", "closest"), [("rtac", "ratc"), ("RDA_masked", "rda-masked")])
def test_an_unknown_name_is_answered_with_the_closest_and_all(name: str, closest: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.create(name, CONTEXT)
    message = str(caught.value)
    assert f"unknown scheduler '{name}'; did you mean '{closest}'?" in message
    assert all(known in message for known in registry.names())


def test_a_name_like_none_gets_no_guess() -> None:
    with pytest.raises(UsageError, match=r"unknown scheduler 'xyzzy'; Known: ratc"):
        registry.describe("xyzzy")


@pytest.mark.parametrize("name", ["central", "oracle"])
def test_what_only_the_simulator_can_run_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UsageError, match="runs in the simulator only"):
        registry.check(name)


@pytest.mark.parametrize(
    "name", ["no_such_module_here:Class", f"{__name__}:Missing", "a..b:C", ":Class", "json:"]
)
def test_what_cannot_be_loaded_says_why(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        registry.check(name)


def test_what_is_no_scheduler_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has no method `decide`.*test_registry\.py:"):
        registry.create(f"{__name__}:NoScheduler", CONTEXT)
    with pytest.raises(UsageError, match=r"made .*NoScheduler.*, which is no scheduler.*py:\d+"):
        registry.create(f"{__name__}:make_none", CONTEXT)
    # None of them is called to find out.
    for name in (
        *("subprocess:Popen", "os:getpid", "builtins:print", "os:system", "os.path:join"),
        *("subprocess:run", "subprocess:getoutput", "os:popen", "os:environ.get", "shutil:rmtree"),
    ):
        with pytest.raises(UsageError, match="is no scheduler"):
            registry.create(name, CONTEXT)
    with pytest.raises(UsageError, match="is not a class or function"):
        registry.check(f"{__name__}:CONTEXT")


class Misnamed:
    name = "x"

    def __init__(self, context: SchedulerContext) -> None:
        self.name = str(context.options["name"])

    def decide(self, observation: Observation) -> Decision:
        return Decision(0)


@pytest.mark.parametrize("name", ["two\nlines", "\ud800", "\x1b[2J", "x" * 300, "nul\0"])
def test_a_name_that_no_log_can_hold_is_refused(name: str) -> None:
    context = dataclasses.replace(CONTEXT, options={"name": name})
    told = r"calls itself .*; the name is one line of at most 200 printable.*test_registry\.py:\d+"
    with pytest.raises(UsageError, match=told) as raised:
        registry.create(f"{__name__}:Misnamed", context)
    str(raised.value).encode()


def test_what_raises_when_it_is_made_or_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_scheduler.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="importing broken_scheduler raises ZeroDivisionError"):
        registry.check("broken_scheduler:Class")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys\nsys.exit(4)", r"SystemExit: 4, at .*mine_\d\.py:2"),
        ("\n\nraise KeyboardInterrupt", r"KeyboardInterrupt, at .*mine_\d\.py:3"),
        ("def f(:", r"SyntaxError: .*, at .*mine_\d\.py:1"),
        ("import json\njson.loads('{')", r"JSONDecodeError: .*, at .*mine_\d\.py:2"),
        ("import not_there_at_all", r"ModuleNotFoundError: .*, at .*mine_\d\.py:1"),
        ("class GeneratorExit2(BaseException): ...\nraise GeneratorExit2", r"at .*\.py:2"),
    ],
)
def test_whatever_an_import_raises_is_told_with_its_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    told: str,
) -> None:
    module = "mine_1"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=told):
        registry.check(f"{module}:Class")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("no")])
def test_whatever_a_constructor_raises_is_told_with_its_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "RAISED", error)
    with pytest.raises(UsageError, match=rf"{type(error).__name__}.*, at .*test_registry\.py:\d+"):
        registry.create(f"{__name__}:Hapless", CONTEXT)


def test_unknown_options_are_refused_all_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        registry.check("ratc", {"probes": 3, "seed": 1})
    assert [problem.path for problem in caught.value.problems] == ["probes", "seed"]
    with pytest.raises(UsageError, match="known: bias"):
        registry.create(f"{__name__}:Own", CONTEXT, {"bais": 1})


def test_a_node_gets_its_scheduler_without_loading_anything_heavy() -> None:
    script = (
        "import sys; from testbed.schedulers import registry; registry.describe('ratc');"
        "heavy = {'numpy', 'pydantic', 'sqlalchemy', 'grpc', 'numba'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
