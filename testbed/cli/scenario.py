"""``init`` and ``scenario``: write, list, show and check scenario files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli import console
from testbed.cli.options import Json, ScenarioName, Settings, quoted
from testbed.errors import Problem, UsageError
from testbed.model.units import counted

if TYPE_CHECKING:
    from testbed.scenario.plan import PlanHead

group = typer.Typer(no_args_is_help=True, help="List, show and check scenarios.")


def init(
    path: Annotated[
        Path, typer.Argument(help="File to write (.yaml), or the folder for a scenario.yaml.")
    ] = Path("scenario.yaml"),
    source: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Shipped scenario to start from.")
    ] = "quickstart",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented scenario file to change and bring up."""
    from testbed.cli.files import write_text
    from testbed.scenario.load import shipped_text

    text = shipped_text(source)
    # As everywhere, only what ends in .yaml or .yml is a scenario file.
    is_file = path.suffix in {".yaml", ".yml"}
    if path.suffix and not is_file and not path.is_dir():
        raise UsageError(
            "nothing was written",
            [
                Problem(
                    str(path),
                    "is the name of no scenario file, and there is no folder of this name",
                    f"a name that ends in .yaml, as in {path.with_suffix('.yaml')}, or a folder",
                )
            ],
        )
    target = path if is_file else path / "scenario.yaml"
    write_text(target, text, overwrite=force)
    console.note(f"wrote {target}")
    console.next_command(
        f"testbed scenario validate {quoted(target)}", f"testbed up {quoted(target)}"
    )


@group.command("list")
def list_(as_json: Json = False) -> None:
    """List the scenarios that ship with the package."""
    from testbed.scenario.load import shipped

    entries = shipped()
    if as_json:
        console.emit([{"name": name, "description": text} for name, text in entries])
        return
    table = console.Rows(["NAME", "~DESCRIPTION"])
    for name, text in entries:
        table.add(console.mark(name, "cyan"), text)
    console.show(table)
    console.next_command(f"testbed scenario show {entries[0][0]}", "testbed init my.yaml")


@group.command("show")
def show(
    scenario: ScenarioName,
    settings: Settings = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every key, defaults included, without comments.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="The plan of a run that is drawn from it, as JSON.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a scenario: as written, with all defaults, or as drawn."""
    from testbed.scenario.load import draw, dumps, load, shipped_names, shipped_text

    loaded = load(scenario, settings or ())
    if plan:
        console.emit(json.loads(draw(loaded).to_json()))
    elif as_json:
        console.emit(loaded.document())
    elif full or settings:
        console.out(dumps(loaded).rstrip())
    elif scenario in shipped_names():
        console.out(shipped_text(scenario).rstrip())
    else:
        console.out(Path(scenario).read_text("utf-8").rstrip())


@group.command("validate")
def validate(
    scenarios: Annotated[
        list[str], typer.Argument(metavar="SCENARIO...", help="Files, or names of shipped ones.")
    ],
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Check scenario files and report every problem; exit code 2 if there is any."""
    from testbed.api.planning import check_objective
    from testbed.scenario.load import draw, load, warnings

    documents = []
    wrong = 0
    for name in scenarios:
        try:
            loaded = load(name, settings or ())
            plan = draw(loaded)
            check_objective(plan)
        except UsageError as error:
            wrong += 1
            problems = [
                {"path": each.path, "seen": each.seen, "allowed": each.allowed}
                for each in error.problems
            ]
            documents.append({"scenario": name, "valid": False, "problems": problems})
            if not as_json:
                console.error(str(error))
        else:
            warned = warnings(loaded)
            documents.append(
                {
                    "scenario": name,
                    "valid": True,
                    "hash": plan.scenario_hash,
                    **({"warnings": warned} if warned else {}),
                }
            )
            if not as_json:
                for line in warned:
                    console.warn(f"{name}: {line}")
                console.show(f"{console.mark('ok', 'green')} {name}: {_in_short(plan)}")
    if as_json:
        console.emit(documents)
    if wrong:
        raise typer.Exit(UsageError.exit_code)
    if not as_json:
        first = quoted(scenarios[0])
        console.next_command(f"testbed up {first}", f"testbed sim {first}")


@group.command("schema")
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from testbed.scenario.check import json_schema

    console.emit(json_schema())


def _in_short(plan: PlanHead) -> str:
    return (
        f"{counted(plan.size, 'node')}, {counted(plan.episodes, 'episode')} of "
        f"{plan.episode_in_short}, scheduler {plan.scheduler.name}, "
        f"hash {plan.scenario_hash[:12]}"
    )
