"""``dataset``: logged decisions and outcomes as transitions that learners eat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from testbed.cli import console
from testbed.cli.options import Json, Name, RunIds, Storage, quoted
from testbed.cli.progress import paces
from testbed.errors import TestbedError
from testbed.model.encoders import DEFAULT
from testbed.model.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable

group = typer.Typer(no_args_is_help=True, help="Make data sets of logged runs, and export them.")

DataSetName: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Name of a data set of this home, or its folder."),
]


@group.command()
def build(
    runs: RunIds = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="NAME|DIR",
            help="Name in this home, or a folder (with a slash). Default: after the first run.",
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", metavar="NAME", help="Encoder of the observations.")
    ] = DEFAULT,
    include_invalid: Annotated[
        bool,
        typer.Option(
            "--include-invalid",
            help="Also use runs that are invalid, degraded or incomplete.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a data set of that name.")
    ] = False,
    name: Name = "default",
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Build a data set from runs (default: the latest), one sequence per episode and node."""
    from testbed.api.data_sets import new_folder
    from testbed.api.logs import open_log
    from testbed.cli.selection import find_runs
    from testbed.storage.dataset import build as build_data_set

    with console.if_interrupted("nothing was written"), open_log(storage, name) as log:
        ids = find_runs(log, runs, name)
        folder = new_folder(out or f"{ids[0]}-{encoder}")
        metadata = build_data_set(
            log,
            ids,
            encoder,
            folder,
            include_untrustworthy=include_invalid,
            overwrite=force,
            progress=_progress(),
        )
    for left in metadata["left_out"]:
        console.warn(f"run {left['id']} was left out: {left['reason']}")
    if as_json:
        console.emit({**metadata, "folder": str(folder)})
        return
    counts = metadata["counts"]
    console.note(
        f"{counts['rows']} transitions of {counted(counts['episodes'], 'episode')}, "
        f"{counts['tasks']} with a task"
    )
    console.out(str(folder))
    console.next_command(
        f"testbed dataset show {_shown(folder)}",
        f"testbed dataset export {_shown(folder)} --format minari",
    )


@group.command("list")
def list_(as_json: Json = False) -> None:
    """List the data sets of this home, oldest first."""
    from testbed.api.data_sets import root
    from testbed.storage.dataset import brief, list_data_sets

    found = list_data_sets(root())
    if as_json:
        console.emit([{**brief(metadata), "folder": str(path)} for path, metadata in found])
        return
    if not found:
        console.note(f"no data set is in {root()}")
        console.next_command("testbed dataset build")
        return
    table = console.Rows(["DATASET", "SCENARIO", "ENCODER", ">NODES", ">EPISODES", ">ROWS", "MADE"])
    for path, metadata in found:
        shown = brief(metadata)
        table.add(
            console.mark(path.name, "cyan"),
            console.plain(str(shown["scenario"])),
            shown["encoder"],
            shown["nodes"],
            shown["episodes"],
            shown["rows"],
            str(shown["created"])[:19].replace("T", " "),
        )
    console.show(table)
    console.next_command(f"testbed dataset show {found[-1][0].name}")


@group.command()
def show(data_set: DataSetName, as_json: Json = False) -> None:
    """Show the contents of a data set: runs, behaviour policies, counts, fidelity."""
    from testbed.api.data_sets import folder_of
    from testbed.storage.dataset import brief
    from testbed.storage.dataset import show as show_data_set

    folder = folder_of(data_set)
    metadata = show_data_set(folder)
    if as_json:
        console.emit({**metadata, "folder": str(folder)})
        return
    facts = console.Rows(["DATASET", console.mark(folder.name, "cyan")])
    for label, value in brief(metadata).items():
        facts.add(label, None if value is None else console.plain(str(value)))
    for label, value in metadata["counts"].items():
        if label not in {"rows", "episodes"}:
            facts.add(label.replace("_", " "), str(value))
    for run in metadata["runs"]:
        facts.add(f"run {run['id']}", console.plain(f"{run.get('scheduler')} {run.get('state')}"))
    for left in metadata["left_out"]:
        facts.add(f"left out {left['id']}", console.plain(str(left["reason"])))
    console.show(facts)
    console.next_command(f"testbed dataset validate {quoted(data_set)}")


@group.command()
def validate(data_set: DataSetName, as_json: Json = False) -> None:
    """Check that a data set is unaltered and can be learned from; exit code 1 if it is not."""
    from testbed.api.data_sets import folder_of
    from testbed.storage.dataset import validate as validate_data_set

    folder = folder_of(data_set)
    problems = validate_data_set(folder)
    if as_json:
        listed = [{"path": p.path, "seen": p.seen, "allowed": p.allowed} for p in problems]
        console.emit({"folder": str(folder), "valid": not problems, "problems": listed})
    elif problems:
        for problem in problems:
            console.out(str(problem))
    else:
        console.out("valid")
    if problems:
        raise typer.Exit(TestbedError.exit_code)


@group.command()
def export(
    data_set: DataSetName,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write. Default: DATASET-FORMAT."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="csv|jsonl|parquet|minari|minari-flat|rllib",
            help="Format; repeatable. Default: csv.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: Json = False,
) -> None:
    """Write a data set for other tools: CSV, JSON Lines, Parquet, Minari, RLlib's offline format.

    Each library's format gets a folder of its own; the plain files share one.
    """
    from testbed.api.data_sets import exported, folder_of

    folder = folder_of(data_set)
    with console.if_interrupted("files that are not complete were removed"):
        written = exported(folder, formats or ["csv"], out, overwrite=force, progress=_progress())
    if as_json:
        console.emit({"folder": str(folder), "written": written})
        return
    for target_name in dict.fromkeys(written.values()):
        console.out(target_name)


def _shown(folder: Path) -> str:
    from testbed.api.data_sets import root

    return folder.name if folder.parent == root() else quoted(folder)


def _progress() -> Callable[[str, int, int], None]:
    """Return what shows how far each part is, and when it is over."""
    tell = paces("{}")

    def progress(what: str, done: int, total: int) -> None:
        tell(what, done, total)
        if total and done >= total:
            console.note(f"{what}: {done}")

    return progress
