"""``policy``: learned policies, in the artifact store and on running nodes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from testbed.api.places import runtime
from testbed.api.policies import imported, listed, resolved, surroundings
from testbed.api.running import client_of
from testbed.cli import console, estimating, tuning
from testbed.cli.network import with_name
from testbed.cli.options import (
    Artifacts,
    Json,
    Name,
    ScenarioName,
    Settings,
    node_numbers,
    quoted,
)
from testbed.cli.progress import paces
from testbed.errors import PermanentError, Problem, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.policies import Policy, PolicyCard
    from testbed.rpc.operator import PolicyDeployment

group = typer.Typer(no_args_is_help=True, help="List, evaluate, deploy and roll back policies.")

Reference: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="Policy id or a unique prefix, its key, shipped/NAME, or its folder (./FOLDER).",
    ),
]

STATE_STYLES = {
    "deciding": "green",
    "ready": "cyan",
    "refused": "bold red",
    "unchanged": "yellow",
    "lost": "bold red",
}


@group.command("list")
def list_(name: Name = "default", artifacts: Artifacts = None, as_json: Json = False) -> None:
    """List the policies in the artifact store, oldest first, after those that are shipped."""
    store, deployed = surroundings(name, artifacts)
    found, unusable = listed(store)
    documents = [{**_document(policy, deployed), "damaged": None} for policy in found]
    damaged = [{"reference": reference, "damaged": str(error)} for reference, error in unusable]
    if as_json:
        console.emit([*documents, *damaged])
        return
    if not documents and not damaged:
        console.note(f"no policy is in {store}")
        console.next_command("testbed policy import FOLDER")
    else:
        table = console.Rows(["POLICY", "KIND", ">NODES", "TRAINED ON", "CREATED", "DEPLOYED"])
        for each in documents:
            table.add(
                _marked(each),
                each["kind"],
                each["nodes"] or "any",
                None if each["scenario"] is None else console.plain(each["scenario"]),
                console.plain(each["created"][:19].replace("T", " ")),
                console.mark("yes", "green") if each["deployed"] else None,
            )
        for each in damaged:
            table.add(_marked(each), console.mark("damaged", "bold red"), *[None] * 4)
        console.show(table)
        last = _short(documents[-1]) if documents else "POLICY"
        console.next_command(
            with_name(f"testbed policy deploy {last}", name),
            f"testbed policy evaluate {last} paper-simulation",
        )
    for each in damaged:
        console.warn(each["damaged"])


@group.command()
def show(
    policy: Reference, name: Name = "default", artifacts: Artifacts = None, as_json: Json = False
) -> None:
    """Verify the files of a policy and show its card."""
    store, deployed = surroundings(name, artifacts)
    found = resolved(policy, store)
    if as_json:
        console.emit(_document(found, deployed))
        return
    card = found.card
    facts = console.Rows(["POLICY", console.mark(card.id, "cyan")])
    for label, value in _facts(card):
        facts.add(label, None if value is None else console.plain(str(value)))
    for label, values in (("evaluation", card.evaluation), ("training", card.training)):
        for key, value in values.items():
            facts.add(f"{label} {key}", console.plain(str(value)))
    facts.add("deployed", "yes" if found.reference == deployed else "no")
    console.show(facts)
    console.next_command(with_name(f"testbed policy deploy {quoted(policy)}", name))


@group.command()
def deploy(
    policy: Reference,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes", metavar="0,2,5-7", help="Deploy to these nodes only, for the current run."
        ),
    ] = None,
    name: Name = "default",
    as_json: Json = False,
) -> None:
    """Deploy a policy to the nodes of a running testbed: to all of them or to none.

    Nodes fetch and verify it, load it beside what decides, and swap between two decisions. Where
    another scheduler than drl decides, it continues; `testbed scheduler set drl` changes that.
    A folder is imported into the artifact store first.
    """
    wanted = node_numbers(nodes)
    testbed = runtime(name).find(name)
    with client_of(testbed) as client:
        reference = imported(policy, testbed.artifacts or client.status().artifacts)
        done = client.deploy_policy(reference, nodes=wanted)
    _tell(done, name, as_json)


@group.command()
def rollback(name: Name = "default", as_json: Json = False) -> None:
    """Undo the last deploy: return to the policy before it."""
    with client_of(runtime(name).find(name)) as client:
        done = client.roll_back_policy()
    _tell(done, name, as_json)


@group.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with actor.onnx and policy.json.")
    ],
    name: Name = "default",
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Verify a policy in a folder and store it in the artifact store."""
    from testbed.policies import folder_of, load_folder, save
    from testbed.policies.inference import open_actor

    found = load_folder(folder_of(str(folder)))
    open_actor(found)
    store, deployed = surroundings(name, artifacts)
    key = save(store, found.card, found.actor)
    if as_json:
        console.emit({**_document(found, deployed), "reference": key})
        return
    console.out(key)
    console.next_command(with_name(f"testbed policy deploy {found.card.id}", name))


@group.command()
def export(
    policy: Reference,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write, new or empty.")
    ],
    name: Name = "default",
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Write a policy as a folder with its two files, actor.onnx and policy.json."""
    from testbed.policies import folder_of, write_folder

    found = resolved(policy, surroundings(name, artifacts)[0])
    place = folder_of(str(folder))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(
            "nothing was written",
            [Problem(str(place), "exists already", "name a folder that is new or empty")],
        )
    write_folder(place, found.card, found.actor)
    if as_json:
        console.emit({**asdict(found.card), "folder": str(place)})
        return
    console.out(str(place))
    console.next_command(f"testbed policy import {quoted(place)}")


@group.command()
def evaluate(
    policy: Reference,
    scenario: ScenarioName,
    episodes: Annotated[
        int, typer.Option("--episodes", "-e", min=1, help="Number of episodes.")
    ] = 20,
    first_episode: Annotated[
        int, typer.Option("--first-episode", min=0, help="Number of the first episode.")
    ] = 0,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="SCHEDULER",
            help="Compare with this scheduler; repeat it for more. Default: RATC, RDA, the "
            "heuristics with the same overload bits, and those that ask for backlogs.",
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Take the most probable destination.")
    ] = False,
    equal_order: Annotated[
        bool,
        typer.Option(
            "--equal-order",
            help="Heuristics ask their peers about every task first, as policies do. By default "
            "those that stay local do not ask, and the others hear of it.",
        ),
    ] = False,
    settings: Settings = None,
    name: Name = "default",
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Compare a policy with heuristics in the simulator, on the same tasks and faults."""
    from testbed.experiment.evaluation import POLICY, compare_policy
    from testbed.experiment.statistics import adjustment
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan as plan_of
    from testbed.schedulers.catalogue import REFERENCES

    found = resolved(policy, surroundings(name, artifacts)[0])
    plan = plan_of(load(scenario, settings or ()))

    tell = paces("episodes of {}")

    def progress(method: str, done: int) -> None:
        tell(method, done, episodes)
        if done == episodes:
            console.note(f"{method}: {counted(episodes, 'episode')}")

    result = compare_policy(
        plan,
        found,
        episodes=episodes,
        first_episode=first_episode,
        against=tuple(dict.fromkeys(against or REFERENCES)),
        deterministic=deterministic,
        equal_order=equal_order,
        progress=progress,
    )
    for note in result.notes:
        console.note(note)
    for warning in result.warnings:
        console.warn(warning)
    if as_json:
        console.emit(result.document)
        return
    table = console.Rows(["METHOD", ">SUCCESS", "INTERVAL", ">P", "POLICY AGAINST IT"])
    for method, rate in result.success_rates.items():
        own = method == POLICY
        compared = None if own else result.comparisons[method]
        table.add(
            console.mark(found.card.id if own else method, "cyan"),
            f"{100 * rate.mean:.1f} %",
            None if rate.count < 2 else f"{100 * rate.low:.1f} .. {100 * rate.high:.1f}",
            None if compared is None or compared.real is None else f"{compared.p_value:.2g}",
            None if compared is None else compared.verdict,
        )
    console.show(table)
    if how := adjustment(result.comparisons.values()):
        console.out(how)
    console.next_command(with_name(f"testbed policy deploy {quoted(policy)}", name))


group.command("estimate")(estimating.estimate)
group.command("tune")(tuning.tune)


def _document(policy: Policy, deployed: str) -> dict[str, Any]:
    return {
        "reference": policy.reference,
        **asdict(policy.card),
        "deployed": policy.reference == deployed,
    }


def _marked(document: dict[str, Any]) -> str:
    return console.mark(_short(document), "cyan")


def _short(document: dict[str, Any]) -> str:
    """Return the name by which a user refers to the policy of a document."""
    reference: str = document["reference"]
    return reference.removeprefix("policies/")


def _facts(card: PolicyCard) -> list[tuple[str, object]]:
    from testbed.model.information import told

    scenario = None
    if card.scenario is not None or card.scenario_hash is not None:
        only = ", and for no other" if card.scenario_required else ""
        scenario = f"{card.scenario or '?'} [{(card.scenario_hash or '')[:12]}]{only}"
    overload = card.overload and ", ".join(f"{key} {value}" for key, value in card.overload.items())
    return [
        ("kind", card.kind),
        ("encoder", card.encoder),
        ("nodes", card.nodes or "any number"),
        ("trained on", scenario),
        ("overload", overload),
        ("asks its peers for", told(card.asks)),
        ("data set", card.dataset_hash),
        ("parents", ", ".join(card.parents) or None),
        ("created", card.created),
        ("actor", f"{card.size_bytes} bytes, sha256 {card.sha256}"),
    ]


def _tell(done: PolicyDeployment, name: str, as_json: bool) -> None:
    """Print what a deploy did.

    Raises: UsageError: it was refused. PermanentError: a node was lost on the way.
    """
    import json

    for warning in done.warnings:
        console.warn(warning)
    problems = [Problem(f"node {each.node}", each.reason, "") for each in done.failures]
    if not done.accepted:
        raise UsageError(f"{done.policy} was not deployed; nothing has changed", problems)
    if as_json:
        console.emit(json.loads(done.to_json()))
    else:
        table = console.Rows([">NODE", "POLICY", "DECIDES NOW"])
        for each in done.nodes:
            table.add(
                each.node,
                console.mark(each.state, STATE_STYLES[each.state]),
                console.plain(each.scheduler) if each.scheduler else None,
            )
        console.show(table)
        console.note(f"{done.policy} was deployed in {done.seconds:.2f} s")
    if problems:
        told = "\n".join(f"  - {problem}" for problem in problems)
        raise PermanentError(
            f"{len(problems)} nodes did not get {done.policy}; the others use it\n{told}"
        )
    other = any(each.state == "ready" for each in done.nodes)
    if not as_json:
        console.next_command(
            *([with_name("testbed scheduler set drl", name)] if other else []),
            with_name("testbed policy rollback", name),
        )
