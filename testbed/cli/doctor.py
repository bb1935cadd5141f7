"""``doctor``: looks for what would stop a testbed, and says how to put it right."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from testbed.api import home
from testbed.cli import console
from testbed.cli.options import Artifacts, Json, Storage, quoted
from testbed.errors import PrerequisiteMissing


def doctor(
    scenario: Annotated[
        str,
        typer.Option("--scenario", metavar="SCENARIO", help="The network you want to bring up."),
    ] = "quickstart",
    storage: Storage = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Check this machine for what a testbed needs; exit code 3 if something is missing."""
    from testbed.api.calibrating import nodes_carried_here
    from testbed.cli.checks import CHECKS
    from testbed.cli.findings import Surroundings
    from testbed.scenario.load import load

    loaded = load(scenario)
    around = Surroundings(
        home=home.home(),
        storage=home.choose_task_log(storage, loaded.storage),
        artifacts=home.artifacts_url(artifacts, loaded.artifacts),
        nodes=loaded.nodes.count,
        carried=nodes_carried_here(),
    )
    findings = [finding for check in CHECKS for finding in check(around)]
    problems = [finding for finding in findings if finding.status == "problem"]
    if as_json:
        console.emit({"healthy": not problems, "findings": [asdict(each) for each in findings]})
    else:
        styles = {"ok": "green", "note": "dim", "warning": "yellow", "problem": "bold red"}
        table = console.Rows(["CHECK", "STATUS", "~SEEN"])
        for finding in findings:
            table.add(
                finding.check,
                console.mark(finding.status, styles[finding.status]),
                console.plain(finding.seen),
            )
            if finding.fix:
                table.add("", "", console.mark(f"fix: {finding.fix}", "italic"))
        console.show(table)
    if problems:
        names = ", ".join(finding.check for finding in problems)
        console.error(f"not ready: {names}")
        raise typer.Exit(PrerequisiteMissing.exit_code)
    if not as_json:
        console.next_command(f"testbed up {quoted(scenario)}")
