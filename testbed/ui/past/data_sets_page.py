"""The pages of data sets: which there are, and what one was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nicegui import ui

from testbed.errors import Problem, UsageError
from testbed.experiment.facts import Fact
from testbed.storage.dataset import brief, list_data_sets
from testbed.ui.context import Context
from testbed.ui.elements import card, heading, text
from testbed.ui.past import commands, parts


async def data_sets(context: Context) -> None:
    """List the data sets of the home, the latest first."""
    parts.styled()
    heading("Data sets")
    found = await context.work(list_data_sets, context.settings.data_sets)
    if not found:
        with card("No data sets yet"):
            ui.label("One is made of runs whose decisions are logged:")
            parts.command(commands.on_log(context.settings, "dataset", "build", "latest"))
        return
    with ui.element("section").classes("card stack"):
        with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
            parts.head(
                (
                    *(("Data set", ""), ("Scenario", "wide"), ("Encoder", "wide")),
                    *(("Nodes", "number wide"), ("Episodes", "number"), ("Rows", "number")),
                    ("Made, UTC", "wide"),
                )
            )
            with ui.element("tbody"):
                for folder, metadata in reversed(found):
                    _row(folder, brief(metadata))
        parts.command(commands.plain(context.settings, "dataset", "list"))


def _row(folder: Path, shown: dict[str, Any]) -> None:
    with ui.element("tr"):
        with ui.element("td"):
            ui.link(folder.name, f"/data-sets/{folder.name}")
            ui.label(f"{shown['scenario']}, {shown['encoder']}").classes("narrow muted")
        text("td", shown["scenario"], "wide")
        text("td", shown["encoder"], "wide")
        text("td", shown["nodes"], "number wide")
        text("td", shown["episodes"], "number")
        text("td", f"{shown['rows']:,}", "number")
        text("td", str(shown["created"])[:16].replace("T", " "), "wide")


async def data_set(context: Context) -> None:
    """Show the data set that the address names."""
    parts.styled()
    name = context.parameters["name"]
    there = await context.work(list_data_sets, context.settings.data_sets)
    found = {folder.name: (folder, metadata) for folder, metadata in there}
    if name not in found:
        raise UsageError(
            "there is no such data set",
            [Problem("data set", repr(name), f"one of {', '.join(found) or 'none yet'}")],
        )
    folder, metadata = found[name]
    heading(f"Data set {name}")
    with ui.element("div").classes("stack"):
        parts.command(commands.plain(context.settings, "dataset", "show", name))
        with ui.element("div").classes("pair"):
            with card("Facts"):
                parts.facts([Fact("folder", str(folder)), *facts_of(metadata)])
            with card("Runs"):
                with ui.element("ul"):
                    for run in metadata["runs"]:
                        with ui.element("li"):
                            ui.link(str(run["id"]), f"/runs/{run['id']}")
                            text("span", f" {run.get('scheduler')}, {run.get('state')}")
                for left in metadata["left_out"]:
                    ui.label(f"{left['id']} was left out: {left['reason']}").classes("warning")
            with card("Use it"):
                parts.command(commands.plain(context.settings, "dataset", "validate", name))
                parts.command(
                    commands.plain(
                        context.settings, "dataset", "export", name, "--format", "parquet"
                    )
                )


def facts_of(metadata: dict[str, Any]) -> list[Fact]:
    """Return what a data set is, from its metadata."""
    found = [
        Fact(label, "-" if value is None else str(value))
        for label, value in brief(metadata).items()
    ]
    return found + [
        Fact(label.replace("_", " "), str(value))
        for label, value in metadata["counts"].items()
        if label not in {"rows", "episodes"}
    ]
