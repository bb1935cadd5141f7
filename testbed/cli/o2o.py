"""``o2o``: heuristic logs, offline training, online fine-tuning and a fair comparison."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from testbed import environment
from testbed.api import home
from testbed.api.places import runtime
from testbed.api.running import client_of
from testbed.cli import console
from testbed.cli.network import with_name
from testbed.cli.options import (
    DEFAULT_NAME,
    LARGEST_SEED,
    MOST,
    Json,
    Name,
    Settings,
    Storage,
    quoted,
    typed,
)
from testbed.cli.progress import time_left
from testbed.errors import PrerequisiteMissing, Problem, UsageError
from testbed.model.encoders import DEFAULT
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.runtime.base import Testbed
    from testbed.scenario.plan import Plan
    from testbed.scenario.schema import ScenarioFile
    from trainer.o2o.result import O2OResult
    from trainer.o2o.settings import O2OConfig, StageProgress
    from trainer.o2o.sizes import Sizes
    from trainer.o2o.venue import Venue
    from trainer.tracking import Tracking

_DEFAULT_SCENARIO: Final = "quickstart"


def o2o(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help=f"Shipped scenario or scenario file. Default: {_DEFAULT_SCENARIO}.",
        ),
    ] = None,
    scenario_option: Annotated[
        str | None,
        typer.Option(
            "--scenario",
            metavar="SCENARIO",
            help="The scenario as an option instead of an argument.",
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Run in the simulator: minutes, no processes."),
    ] = False,
    topology_seed: Annotated[
        int | None,
        typer.Option("--topology-seed", metavar="N", min=0, help="Seed of the drawn network."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            max=LARGEST_SEED,
            help="Random seed for training and its episodes.",
        ),
    ] = 0,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Training recipe: default, paper (the paper's exact settings), or released "
            "(those, with the defects of the authors' released code).",
        ),
    ] = "default",
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="SCHEDULER",
            help="Scheduler whose logs the offline phase learns from.",
        ),
    ] = "ratc",
    learner: Annotated[
        str | None,
        typer.Option(
            "--learner",
            metavar="NAME",
            help="Offline learner: cql (the paper's), cloning, iql, dqn or shared-target (cql with "
            "one target network). Default: the recipe's.",
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Observation the policy is given: paper-v1, or extended-v1 (also what the node "
            "knows of backlogs).",
        ),
    ] = DEFAULT,
    log_episodes: Annotated[
        int | None,
        typer.Option("--log-episodes", metavar="N", min=1, max=MOST, help="Episodes of logs."),
    ] = None,
    offline_steps: Annotated[
        int | None,
        typer.Option(
            "--offline-steps", metavar="N", min=1, max=MOST, help="Gradient steps on the logs."
        ),
    ] = None,
    online_episodes: Annotated[
        int | None,
        typer.Option(
            "--online-episodes", metavar="N", min=10, max=MOST, help="Episodes of fine-tuning."
        ),
    ] = None,
    evaluation_episodes: Annotated[
        int | None,
        typer.Option(
            "--evaluation-episodes",
            metavar="N",
            min=2,
            max=MOST,
            help="Paired episodes per method.",
        ),
    ] = None,
    online_only: Annotated[
        bool,
        typer.Option(
            "--online-only",
            help="With --simulate: also learn online from nothing, to compare.",
        ),
    ] = False,
    kl_stop: Annotated[
        float | None,
        typer.Option(
            "--kl-stop",
            metavar="X",
            help="End an online update where the policy has moved this far from the one that "
            "acted (mean KL divergence). Default: never.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for checkpoints, policies and report; an unfinished experiment in it is "
            "continued. Default: a new one in the home.",
        ),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Start over, discarding the results in --out.")
    ] = False,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            envvar=environment.ARTIFACTS,
            metavar="URL",
            help="Artifact store for the policies. Default: the scenario's, else the home's.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            help="Learn and simulate on this Ray cluster. Without it no Ray is started.",
        ),
    ] = None,
    ray_workers: Annotated[
        int, typer.Option("--ray-workers", metavar="N", min=1, help="Learners on that cluster.")
    ] = 1,
    include_invalid: Annotated[
        bool,
        typer.Option(
            "--include-invalid",
            help="Accept runs of the network that are outside their limits of fidelity.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="Threads for episodes. Default: CPUs."),
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker",
            metavar="NAME",
            help="Tell this tracker of the experiment (MLflow, for example): an installed one, or "
            "module:Class. Repeatable.",
        ),
    ] = None,
    settings: Settings = None,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Learn a policy from heuristic logs, fine-tune it, and compare it with all baselines."""
    check_learning_is_possible()
    from testbed.scenario.load import load
    from trainer.tracking import open_trackers

    if online_only and not simulate:
        raise UsageError(
            "--online-only works only with --simulate",
            [Problem("--online-only", "given without --simulate", "add --simulate")],
        )
    chosen = _scenario_of(scenario, scenario_option)
    overrides = list(settings or ())
    if topology_seed is not None:
        overrides.append(f"seeds.topology={topology_seed}")
    loaded = load(chosen, overrides)
    asked = _Asked(
        scenario=loaded,
        out=out or _new_folder(loaded),
        store=home.artifacts_url(artifacts, loaded.artifacts),
        recipe=recipe,
        source=source,
        learner=learner,
        encoder=encoder,
        seed=seed,
        sizes={
            "log_episodes": log_episodes,
            "offline_steps": offline_steps,
            "online_episodes": online_episodes,
            "evaluation_episodes": evaluation_episodes,
        },
        kl_stop=kl_stop,
        online_only=online_only,
        include_invalid=include_invalid,
        resume=not anew,
        ray_address=ray_address,
        ray_workers=ray_workers,
        threads=threads,
        tracking=open_trackers(trackers or (), console.warn),
    )
    with asked.tracking:
        try:
            result = _simulated(asked) if simulate else _on_network(asked, name, storage)
        except KeyboardInterrupt:
            console.next_command(f"testbed o2o ... --out {quoted(asked.out)}")
            raise
        _tell(result, asked.out, as_json, DEFAULT_NAME if simulate else name)
        for folder in ("policies", "report"):
            asked.tracking.artifact(asked.out / folder)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of the command, for both venues."""

    scenario: ScenarioFile
    out: Path
    store: str
    recipe: str
    source: str
    learner: str | None
    encoder: str
    seed: int
    sizes: Mapping[str, int | None]
    kl_stop: float | None
    online_only: bool
    include_invalid: bool
    resume: bool
    ray_address: str | None
    ray_workers: int
    threads: int | None
    tracking: Tracking

    def config(self, usual: Sizes, methods: tuple[str, ...], *, real_time: bool) -> O2OConfig:
        """Return the settings; ``usual`` are the sizes where none are given.

        In ``real_time`` updates are small, and each is evaluated.
        """
        from trainer.o2o.recipe import recipe, sized
        from trainer.o2o.settings import O2OConfig

        given = {key: value for key, value in self.sizes.items() if value is not None}
        chosen = replace(usual, **given)
        base = sized(
            recipe(self.recipe),
            seed=self.seed,
            offline_steps=chosen.offline_steps,
            online_episodes=chosen.online_episodes,
            learner=self.learner,
            kl_stop=self.kl_stop,
            episodes_per_update=10 if real_time else None,
            evaluation_episodes=chosen.evaluation_episodes if real_time else None,
            evaluate_every=1 if real_time else None,
            num_learners=self.ray_workers if self.ray_address else 0,
        )
        return O2OConfig(
            recipe=base,
            source=self.source,
            encoder=self.encoder,
            log_episodes=chosen.log_episodes,
            evaluation_episodes=chosen.evaluation_episodes,
            methods=methods,
            online_only=self.online_only,
            include_invalid=self.include_invalid,
            seed=self.seed,
        )

    def announce(self, where: str, config: O2OConfig, duration: str = "") -> None:
        """Print what is about to be done."""
        recipe = config.recipe
        console.note(
            f"{where}: {counted(config.log_episodes, 'episode')} of {config.source}, "
            f"{counted(recipe.offline.steps, 'offline step')}, "
            f"{counted(recipe.online.episodes, 'online episode')}, "
            f"recipe {self.recipe}; {duration}in {self.out}"
        )


def _simulated(asked: _Asked) -> O2OResult:
    from testbed.scenario.resolve import plan as plan_of
    from testbed.schedulers.catalogue import BASELINES
    from trainer.o2o.cluster import connected, rollout_on
    from trainer.o2o.simulated import SimulatedVenue
    from trainer.o2o.sizes import of_simulation

    plan = plan_of(asked.scenario)
    config = asked.config(of_simulation(plan), BASELINES, real_time=False)
    # Says what is wrong before anything is announced.
    SimulatedVenue(plan, store=asked.store).identity(config)
    asked.announce(
        f"{plan.name}, {counted(plan.topology.size, 'node')}, topology seed {plan.seeds.topology}",
        config,
    )
    with connected(asked.ray_address):
        venue = SimulatedVenue(
            plan,
            threads=asked.threads,
            rollout=rollout_on(plan, config.recipe) if asked.ray_address else None,
            store=asked.store,
        )
        return _run(venue, config, asked)


def _on_network(asked: _Asked, name: str, storage: str | None) -> O2OResult:
    from testbed.scenario.load import dumps
    from testbed.scenario.resolve import plan as plan_of
    from trainer.o2o.network import check_experiment
    from trainer.o2o.settings import ON_NODES
    from trainer.o2o.sizes import of_network

    plan = plan_of(
        asked.scenario,
        storage_url=home.choose_task_log(storage, asked.scenario.storage),
        artifacts_url=asked.store,
    )
    config = asked.config(of_network(plan), ON_NODES, real_time=True)
    check_experiment(plan, config, asked.out, resume=asked.resume)
    minutes = _minutes(plan, config)
    asked.announce(f"{plan.name} on the network '{name}'", config, f"about {minutes:.0f} minutes; ")
    place = runtime(name)
    own = name not in place.names()
    try:
        if own and not place.on_this_machine:
            raise UsageError(
                f"testbed '{name}' is not up",
                [
                    Problem(
                        "name",
                        f"'{name}' is not up",
                        with_name(f"testbed up {plan.name}", name) + ", with the same --runtime",
                    )
                ],
            )
        if own:
            console.note(f"bringing up {plan.name} as '{name}'")
            testbed = place.up(plan, name, scenario=dumps(asked.scenario), report=console.note)
        else:
            testbed = place.find(name)
        return _run_on(testbed, plan, config, asked)
    finally:
        if own and place.on_this_machine:
            place.down(name)


def _run_on(testbed: Testbed, plan: Plan, config: O2OConfig, asked: _Asked) -> O2OResult:
    from testbed.storage.tasklog import open_task_log
    from trainer.o2o.cluster import connected
    from trainer.o2o.network import NetworkVenue

    with client_of(testbed, timeout=30.0) as client, connected(asked.ray_address):
        status = client.status()
        if status.scenario_hash != plan.scenario_hash:
            raise UsageError(
                f"testbed '{testbed.name}' runs a different network",
                [
                    Problem(
                        "--name",
                        f"{status.scenario} [{status.scenario_hash[:8]}] is up",
                        f"{plan.name} [{plan.scenario_hash[:8]}], or another name",
                    )
                ],
            )
        with open_task_log(testbed.store, create=False) as log:
            venue = NetworkVenue(client, log, testbed.artifacts or status.artifacts, plan)
            return _run(venue, config, asked)


def _run(venue: Venue, config: O2OConfig, asked: _Asked) -> O2OResult:
    from trainer.o2o.pipeline import run

    return run(
        venue,
        config,
        asked.out,
        progress=_Teller(),
        tracking=asked.tracking,
        resume=asked.resume,
    )


def _minutes(plan: Plan, config: O2OConfig) -> float:
    """Return how many minutes all runs take at least."""
    online, methods = config.recipe.online, len(config.methods) + 2
    updates = online.episodes // online.episodes_per_update
    episodes = (
        config.log_episodes
        + online.episodes
        + (updates + 2) * online.evaluation_episodes
        + methods * config.evaluation_episodes
    )
    return episodes * plan.episode_seconds / 60


class _Teller:
    """Print progress on stderr: each stage when it begins, then at most every few seconds.

    ``now`` gives seconds of a clock that only goes forward.
    """

    def __init__(self, every: float = 5.0, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._last = 0.0
        self._part: tuple[str, int] = ("", 0)
        self._done = 0
        self._began = (0.0, 0)

    def __call__(self, progress: StageProgress) -> None:
        now = self._now()
        part = (progress.stage, progress.total)
        another = part != self._part or progress.done < self._done
        if another:
            self._began = (now, progress.done)
        self._part, self._done = part, progress.done
        over = progress.done >= progress.total
        if not (another or over or progress.notable) and now - self._last < self._every:
            return
        self._last = now
        told = f"{progress.stage} {progress.done}/{progress.total}: {progress.message}"
        console.note(told + self._left(progress, now))

    def _left(self, progress: StageProgress, now: float) -> str:
        """Return the time left of this stage at its speed so far; empty before that is known."""
        began, before = self._began
        told = time_left(now - began, progress.done - before, progress.total - progress.done)
        return f"; {told} left" if told else ""


def _tell(result: O2OResult, out: Path, as_json: bool, name: str) -> None:
    from testbed.experiment.o2o import document, table, write_report

    page = write_report(result, out / "report", typed())
    if as_json:
        console.emit({**document(result), "out": str(out)})
    else:
        rows = console.Rows(["METHOD", "KNOWS OF OTHERS", ">SUCCESS", "INTERVAL", ">ABOVE RATC"])
        for row in table(result).to_dict("records"):
            rows.add(
                console.mark(row["method"], "cyan"),
                row["knows of others"],
                f"{100 * row['success rate']:.1f} %",
                f"{100 * row['low']:.1f} .. {100 * row['high']:.1f}",
                _points(row.get("above ratc")),
            )
        console.show(rows)
    for note in result.notes:
        console.warn(note)
    console.note(f"report: {page}")
    best = result.policies.get("o2o") or result.policies.get("offline")
    if best is not None:
        console.next_command(
            f"testbed policy show {best}", with_name(f"testbed policy deploy {best}", name)
        )


def _points(value: Any) -> str | None:
    return None if value is None or value != value else f"{100 * value:+.1f}"


def _scenario_of(argument: str | None, option: str | None) -> str:
    if argument and option and argument != option:
        raise UsageError(
            "two different scenarios are given",
            [Problem("--scenario", f"{option!r} and {argument!r} are given", "one of the two")],
        )
    return argument or option or _DEFAULT_SCENARIO


def _new_folder(loaded: ScenarioFile) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    stem = f"{stamp}-{loaded.metadata.name}-{loaded.seeds.topology}"
    root = home.home() / home.EXPERIMENTS
    candidate, number = root / stem, 2
    while candidate.exists():
        candidate, number = root / f"{stem}-{number}", number + 1
    return candidate


def check_learning_is_possible() -> None:
    """Raises: PrerequisiteMissing: the learning libraries are not installed."""
    missing = [name for name in ("torch", "ray", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise PrerequisiteMissing(
            f"learning needs {', '.join(missing)}", "pip install 'edge-testbed[train]'"
        )
