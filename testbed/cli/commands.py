"""The commands of ``testbed``: what each is called, and where it is.

A command's module, with all that it imports, is loaded when the command is called; ``testbed
--help`` loads none of them, and shows the summaries that stand here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info, get_group_from_info
from typer.models import CommandInfo, TyperInfo

MARKUP: Final = "rich"

_SET_UP: Final = "Set up"
_NETWORK: Final = "Network"
_EXPERIMENTS: Final = "Experiments"
_RESULTS: Final = "Results"


class Entry(NamedTuple):
    """A command, or a group of them: the ``attribute`` of a module of this package.

    ``summary`` is the first line of its help.
    """

    panel: str
    name: str
    module: str
    attribute: str
    summary: str
    hidden: bool = False

    def load(self) -> Any:
        """Return the command, from its module."""
        found = getattr(importlib.import_module(f"testbed.cli.{self.module}"), self.attribute)
        if isinstance(found, typer.Typer):
            return get_group_from_info(
                TyperInfo(found, name=self.name, rich_help_panel=self.panel),
                pretty_exceptions_short=True,
                suggest_commands=True,
                rich_markup_mode=MARKUP,
            )
        about = CommandInfo(
            name=self.name, callback=found, rich_help_panel=self.panel, hidden=self.hidden
        )
        return get_command_from_info(about, pretty_exceptions_short=True, rich_markup_mode=MARKUP)

    def stub(self) -> TyperCommand:
        """Return what a list of commands shows of it."""
        return TyperCommand(
            self.name, help=self.summary, rich_help_panel=self.panel, hidden=self.hidden
        )


COMMANDS: Final[Sequence[Entry]] = (
    Entry(
        _SET_UP,
        "init",
        "scenario",
        "init",
        "Write a commented scenario file to change and bring up.",
    ),
    Entry(
        _SET_UP,
        "doctor",
        "doctor",
        "doctor",
        "Check this machine for what a testbed needs; exit code 3 if something is missing.",
    ),
    Entry(
        _SET_UP,
        "calibrate",
        "calibrate",
        "calibrate",
        "Measure the largest networks that this machine emulates faithfully, and store the result.",
    ),
    Entry(
        _SET_UP,
        "credentials",
        "credentials",
        "credentials",
        "Make certificates for a testbed that is started by Compose or kubectl.",
    ),
    Entry(
        _NETWORK,
        "up",
        "lifecycle",
        "up",
        "Bring a network up: a controller and the processes of the nodes, until all are healthy.",
    ),
    Entry(_NETWORK, "ps", "network", "ps", "List all testbeds of this home with their states."),
    Entry(
        _NETWORK,
        "list",
        "network",
        "ps",
        "List all testbeds of this home with their states.",
        hidden=True,
    ),
    Entry(
        _NETWORK,
        "status",
        "network",
        "status",
        "Show a testbed: its controller, its run, and the nodes that are not healthy.",
    ),
    Entry(
        _NETWORK,
        "ui",
        "ui",
        "ui",
        "Show a testbed and its runs in a web browser, live, and steer it; until Ctrl-C.",
    ),
    Entry(
        _NETWORK,
        "nodes",
        "network",
        "nodes",
        "Show every node: health, scheduler, queue, memory, processor time, timer lateness.",
    ),
    Entry(
        _NETWORK,
        "logs",
        "network",
        "logs",
        "Print what a process of a testbed has logged; also after the testbed is down.",
    ),
    Entry(
        _NETWORK,
        "kill",
        "network",
        "kill",
        "End a node's process at once, as a crash would; its tasks are lost, the run goes on.",
    ),
    Entry(
        _NETWORK,
        "scale",
        "lifecycle",
        "scale",
        "Change the number of edge nodes of a testbed on a cluster; its network is drawn again.",
    ),
    Entry(
        _NETWORK,
        "teardown",
        "lifecycle",
        "teardown",
        "Take a testbed down and check that nothing of it still runs; no error if there is none.",
    ),
    Entry(
        _EXPERIMENTS,
        "run",
        "run",
        "run",
        "Run episodes on a testbed that is up, under one scheduler, and watch them.",
    ),
    Entry(
        _EXPERIMENTS,
        "attach",
        "run",
        "attach",
        "Follow a run that was started elsewhere, to its end; Ctrl-C leaves it running.",
    ),
    Entry(
        _EXPERIMENTS,
        "stop",
        "run",
        "stop",
        "End the run in progress in order; what has happened so far is in the task log.",
    ),
    Entry(
        _EXPERIMENTS,
        "sim",
        "sim",
        "sim",
        "Run a scenario in virtual time: seconds instead of minutes, no processes, same results.",
    ),
    Entry(
        _EXPERIMENTS,
        "sweep",
        "sweep",
        "sweep",
        "Compare schedulers while values of the scenario are varied, in the simulator.",
    ),
    Entry(
        _EXPERIMENTS,
        "replay",
        "replay",
        "replay",
        "Run a logged run's tasks, failures and faults again, under other schedulers or the same.",
    ),
    Entry(
        _EXPERIMENTS,
        "o2o",
        "o2o",
        "o2o",
        "Learn a policy from heuristic logs, fine-tune it, and compare it with all baselines.",
    ),
    Entry(
        _EXPERIMENTS,
        "learn",
        "learn",
        "learn",
        "Learn on a testbed that is up: run, learn from the log, deploy, test, keep or roll back.",
    ),
    Entry(
        _EXPERIMENTS,
        "reproduce",
        "reproduce",
        "reproduce",
        "Reproduce figures of papers, and report where the results agree with them.",
    ),
    Entry(
        _RESULTS,
        "tasks",
        "tasks",
        "tasks",
        "List tasks of a run: destination, outcome and reason of each.",
    ),
    Entry(
        _RESULTS,
        "task",
        "tasks",
        "task",
        "Show a task's history: its decisions with their inputs, times, outcome and reason.",
    ),
    Entry(
        _RESULTS,
        "compare",
        "results",
        "compare",
        "Compare runs that share seeds, and report whether the differences are real.",
    ),
    Entry(
        _RESULTS,
        "report",
        "results",
        "report",
        "Write tables and figures of runs into a folder, with an HTML page.",
    ),
    Entry(
        _RESULTS,
        "export",
        "results",
        "export",
        "Write the tables of runs (the latest, if none is named) as files.",
    ),
    Entry(_SET_UP, "version", "about", "version", "Print the version."),
    Entry(_SET_UP, "scenario", "scenario", "group", "List, show and check scenarios."),
    Entry(_SET_UP, "db", "db", "group", "Check and upgrade the tables of the task log."),
    Entry(
        _EXPERIMENTS,
        "scheduler",
        "scheduler",
        "group",
        "List schedulers, or change the one that decides.",
    ),
    Entry(
        _EXPERIMENTS,
        "fault",
        "fault",
        "group",
        "Inject faults into the run in progress, list them, and end them. Faults that are part of "
        "an experiment stand in its scenario (docs/faults.md).",
    ),
    Entry(
        _EXPERIMENTS, "policy", "policy", "group", "List, evaluate, deploy and roll back policies."
    ),
    Entry(
        _EXPERIMENTS, "trainer", "trainer", "group", "Learn on the cluster of a testbed, as a Job."
    ),
    Entry(_RESULTS, "runs", "results", "group", "List and show past runs."),
    Entry(
        _RESULTS, "dataset", "dataset", "group", "Make data sets of logged runs, and export them."
    ),
)


class Commands(TyperGroup):
    """The group of all commands, each loaded when it is asked for by its name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._entries = {entry.name: entry for entry in COMMANDS}
        self.commands = {**{each.name: each.stub() for each in COMMANDS}, **self.commands}
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name; None if there is none."""
        entry = None if self._listing else self._entries.pop(cmd_name, None)
        if entry is not None:
            self.commands[cmd_name] = entry.load()
        return self.commands.get(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, for which no command is loaded."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False
