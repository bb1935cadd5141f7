"""``db``: the tables of the task log: are they of this version, and bring them there."""

from __future__ import annotations

from dataclasses import asdict

import typer

from testbed.api import home
from testbed.cli import console
from testbed.cli.options import Json, Storage, from_log
from testbed.errors import PermanentError

group = typer.Typer(no_args_is_help=True, help="Check and upgrade the tables of the task log.")


@group.command("check")
def check(storage: Storage = None, as_json: Json = False) -> None:
    """Check whether the task log has this version; exit code 5 if not. Changes nothing."""
    from testbed.storage.tasklog import migrating

    found = migrating.check(home.choose_task_log(storage))
    if as_json:
        console.emit({"good": found.good, **asdict(found)})
    else:
        console.out(
            f"{found.where}: schema version {found.version}, this toolkit's {found.current}"
        )
        for each in found.differences:
            console.out(f"  differs: {each}")
    if found.good:
        return
    if found.version is not None and found.version < found.current:
        console.next_command(from_log("testbed db upgrade", storage))
    raise typer.Exit(PermanentError.exit_code)


@group.command("upgrade")
def upgrade(storage: Storage = None, as_json: Json = False) -> None:
    """Upgrade the task log to this version, or create its tables; make a backup first.

    No-op if it is up to date. Testbeds that use it should be down.
    """
    from testbed.storage.tasklog import migrating

    before, after = migrating.upgrade(home.choose_task_log(storage))
    if as_json:
        console.emit({"before": before.version, "after": after.version, "where": after.where})
    elif before.version is None:
        console.out(f"{after.where}: made, schema version {after.version}")
    elif before.version == after.version:
        console.out(f"{after.where}: schema version {after.version} already")
    else:
        console.out(f"{after.where}: upgraded from version {before.version} to {after.version}")
    for each in after.differences:
        console.warn(f"differs from this version: {each}")
