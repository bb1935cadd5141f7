"""``policy tune``: fine-tune a policy by the decisions it made in logged runs."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from testbed.api.logs import open_log
from testbed.api.policies import resolved, surroundings
from testbed.cli import console
from testbed.cli.options import Artifacts, Json, Name, Storage
from testbed.cli.progress import paces
from testbed.cli.selection import find_runs
from testbed.errors import PrerequisiteMissing, Problem, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.policies import Policy
    from testbed.storage.tasklog import TaskLog
    from trainer.per_destination.from_logs import LoggedDecisions
    from trainer.per_destination.tuning import TuneResult

_NEEDED: Final = ("torch", "onnx")


def tune(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs of one scenario in which the policy decided; `latest` is the last run.",
        ),
    ],
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy to tune. Default: the policy that decided in the runs.",
        ),
    ] = None,
    policy_name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Prefix of the new policy's id.")
    ] = "tuned",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Also write the new policy to this folder."),
    ] = None,
    include_invalid: Annotated[
        bool,
        typer.Option("--include-invalid", help="Also learn from runs that are not `completed`."),
    ] = False,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", metavar="X", min=0.0, help="Step size (learning rate)."),
    ] = None,
    check_episodes: Annotated[
        int | None,
        typer.Option(
            "--check-episodes",
            metavar="N",
            min=0,
            help="Simulated episodes in which the new policy is compared with the old one; 0: keep "
            "it without a comparison.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", min=0, help="Random seed for the order of the steps."),
    ] = 0,
    name: Name = "default",
    storage: Storage = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Improve a per-destination policy from its decisions in runs, real or simulated.

    The new policy is put into the artifact store if it is no worse than the old one in the
    simulator, on episodes that were not learned from; else nothing is written.
    """
    check_learning_is_possible("tuning")
    from trainer.per_destination.from_logs import read_decisions
    from trainer.per_destination.tuning import TuneConfig, fine_tune

    config = TuneConfig(seed=seed)
    if learning_rate is not None:
        config = replace(config, learning_rate=learning_rate)
    if check_episodes is not None:
        config = replace(config, check_episodes=check_episodes)
    store, _ = surroundings(name, artifacts)
    with open_log(storage, name) as log:
        ids = find_runs(log, runs, name)
        parent = _parent(log, ids, policy, store)

        tell = paces("{} read")

        def progress(done: int, total: int) -> None:
            tell("episodes", done, total)
            if done >= total:
                console.note(f"read {counted(total, 'episode')}")

        logged = read_decisions(
            log, ids, parent, include_untrustworthy=include_invalid, progress=progress
        )
    _tell_what_was_read(logged)
    from testbed.sim.engine.policies import weights_of

    result = fine_tune(weights_of(parent), logged, config)
    _tell(parent, logged, result, policy_name, store, out, name, as_json)


def _parent(log: TaskLog, ids: list[str], reference: str | None, store: str) -> Policy:
    """Return the policy to tune: the one that is named, else the one that decided.

    Raises: UsageError: none decided, several did, or it is not there any more.
    """
    from testbed.policies import shipped, shipped_names
    from trainer.per_destination.from_logs import who_decided

    if reference is not None:
        return resolved(reference, store)
    found = who_decided(log, ids)
    if len(found) != 1:
        seen = ", ".join(f"{policy} ({count} tasks)" for policy, count in sorted(found.items()))
        raise UsageError(
            "several policies decided in these runs"
            if found
            else "no learned policy decided in these runs",
            [
                Problem(
                    "runs",
                    f"decided by {seen}" if found else "no decision of the scheduler drl",
                    "name one: --policy POLICY" if found else "run with --scheduler drl",
                )
            ],
        )
    [policy_id] = found
    for each in map(shipped, shipped_names()):
        if each.card.id == policy_id:
            return each
    return resolved(policy_id, store)


def _tell_what_was_read(logged: LoggedDecisions) -> None:
    counts = logged.counts
    for run, reason in counts.left_out.items():
        console.warn(f"run {run} was left out: {reason}")
    if counts.plain:
        first, reason = next(iter(counts.plain.items()))
        console.warn(
            f"{len(counts.plain)} of {counts.episodes} episodes have incomplete logs; their "
            f"decisions are scored by task outcome only (episode {first}: {reason})"
        )
    unused = {
        "by other schedulers or policies": counts.by_others,
        "not sampled": counts.not_sampled,
        "failed in transit or lost": counts.not_told,
        "not by these weights": counts.not_by_weights,
    }
    told = ", ".join(f"{count} {why}" for why, count in unused.items() if count)
    console.note(
        f"{counts.decisions} decisions in {counts.episodes} episodes"
        + (f"; not used: {told}" if told else "")
    )


def _tell(
    parent: Policy,
    logged: LoggedDecisions,
    result: TuneResult,
    policy_name: str,
    store: str,
    out: Path | None,
    name: str,
    as_json: bool,
) -> None:
    from testbed.cli.network import with_name
    from testbed.policies import save, write_folder
    from trainer.per_destination.tuning import artifact_of, check_document

    check = result.check
    document: dict[str, Any] = {
        "kept": result.kept,
        "parent": parent.card.id,
        "check": None if check is None else check_document(check),
        "divergence": result.measures.divergence,
        "epochs": result.measures.epochs,
        "logs": logged.counts.document(),
    }
    key = None
    if result.kept:
        card, actor = artifact_of(policy_name, result, logged, parent.card)
        key = save(store, card, actor)
        document |= {"id": card.id, "reference": key}
        if out is not None:
            write_folder(out.expanduser(), card, actor)
    if as_json:
        console.emit(document)
        return
    if check is not None:
        console.note(
            f"in the simulator, {check.episodes} paired episodes: "
            f"{100 * check.before:.2f} % before, {100 * check.after:.2f} % after "
            f"({100 * check.difference:+.2f} ± {100 * check.standard_error:.2f} points)"
        )
    if key is None:
        console.warn(
            f"the new policy scored lower in the simulator; keeping {parent.card.id}, nothing "
            "was saved"
        )
        console.next_command(with_name("testbed run --scheduler drl", name))
        return
    console.out(key)
    console.next_command(with_name(f"testbed policy deploy {key}", name))


def check_learning_is_possible(what: str) -> None:
    """Raises: PrerequisiteMissing: the libraries that ``what`` needs are not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PrerequisiteMissing(
            f"{what} needs {', '.join(missing)}", "pip install 'edge-testbed[train]'"
        )
