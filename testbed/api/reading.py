"""Task logs, read from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.api import home, html, logs
from testbed.api.results import Comparison, RunResult, compared, written_report
from testbed.api.store import Store
from testbed.errors import UsageError
from testbed.scenario.secrets import without_password

if TYPE_CHECKING:
    import pandas as pd

    from testbed.experiment.metrics import Metric
    from testbed.storage.tasklog import LogTable, Run


class Log(Store):
    """A task log: every run with its tasks, events and decisions.

    Usable as a context manager, which closes it; one that is forgotten is closed too.
    """

    def runs(
        self,
        *,
        scheduler: str | None = None,
        scenario: str | None = None,
        testbed: str | None = None,
        state: str | None = None,
        label: str | None = None,
        driver: str | None = None,
        tag: str | None = None,
    ) -> Runs:
        """Return the runs with all of these properties, the latest last.

        ``driver`` is ``"simulator"`` or ``"network"``, ``tag`` one of the run's tags.
        """
        wanted: dict[str, tuple[str | None, Callable[[Run], Any]]] = {
            "scheduler": (scheduler, lambda run: run.info.scheduler),
            "scenario": (scenario, lambda run: run.info.name),
            "testbed": (testbed, lambda run: run.info.testbed),
            "state": (state, lambda run: run.state.value),
            "label": (label, lambda run: run.info.label),
            "driver": (driver, lambda run: run.info.driver),
        }
        asked = [(value, of) for value, of in wanted.values() if value is not None]
        found = [
            run
            for run in self.task_log.runs()
            if all(of(run) == value for value, of in asked) and (tag is None or tag in run.tags)
        ]
        return Runs(self, found)

    def run(self, run: str = "latest") -> RunResult:
        """Return the result of one run: an id, a unique prefix of one, or ``latest``.

        Raises: UsageError: there is none, several match, or it has no finished task.
        """
        from testbed.experiment.summary import summary_of

        return RunResult(summary_of(self.task_log, run), self)

    def __repr__(self) -> str:
        return f"Log({self.where})"

    def _repr_html_(self) -> str:
        return self.runs()._repr_html_()


class Runs(Sequence["Run"]):
    """Some runs of a task log, the latest last.

    A sequence of what the log knows of each run (``id``, ``info``, ``state``, ``certificate``).
    """

    def __init__(self, log: Log, runs: Sequence[Run]) -> None:
        self.log = log
        self._runs = tuple(runs)

    @property
    def ids(self) -> list[str]:
        """The ids of the runs."""
        return [run.id for run in self._runs]

    @property
    def table(self) -> pd.DataFrame:
        """A row per run: ``run``, ``scenario``, ``scheduler``, ``driver``, ``testbed``, ``state``,
        ``episodes``, ``tasks``, ``success_rate`` (share of all tasks), ``started``, ``label``. Of
        serving runs the requests are counted as tasks, and those served as success.
        """
        import pandas as pd

        from testbed.experiment.summary import SUMMARIES, counted

        rows = []
        found = counted(self.log.task_log, self._runs)
        for run in self._runs:
            total, rate = SUMMARIES.of(run).rate(found[run.id])
            rows.append(
                {
                    "run": run.id,
                    "scenario": run.info.name,
                    "scheduler": run.info.scheduler,
                    "driver": run.info.driver,
                    "testbed": run.info.testbed,
                    "state": run.state.value,
                    "episodes": run.info.episodes,
                    "tasks": total,
                    "success_rate": rate,
                    "started": run.info.started,
                    "label": run.info.label,
                }
            )
        columns = (
            *("run", "scenario", "scheduler", "driver", "testbed", "state", "episodes", "tasks"),
            *("success_rate", "started", "label"),
        )
        return pd.DataFrame(rows, columns=list(columns))

    def tasks(self) -> pd.DataFrame:
        """Return a row per task of all these runs, columns as in the log (docs/task-log.md).

        Times are in microseconds; ``scheduler`` is the one that decided about the task.
        """
        return self._joined("tasks")

    def events(self) -> pd.DataFrame:
        """Return a row per event of a task, columns as in the log, with the run's ``scheduler``."""
        return self._joined("events")

    def decisions(self) -> pd.DataFrame:
        """Return a row per decision with its inputs, as ``events``."""
        return self._joined("decisions")

    def requests(self) -> pd.DataFrame:
        """Return a row per request of serving runs, as ``events``."""
        return self._joined("requests")

    def windows(self) -> pd.DataFrame:
        """Return a row per node and window of serving runs, as ``events``."""
        return self._joined("windows")

    def routings(self) -> pd.DataFrame:
        """Return a row per call of a router of serving runs, as ``events``."""
        return self._joined("routings")

    def results(self) -> list[RunResult]:
        """Return the result of each run. Raises: UsageError: one has no finished task."""
        return [self.log.run(each) for each in self.ids]

    def compare(self) -> Comparison:
        """Compare these runs episode by episode.

        Raises: UsageError: fewer than two, or they did not meet the same tasks.
        """
        return compared(self.results())

    def report(self, out: str | os.PathLike[str], *, by: str | Metric | None = None) -> Path:
        """Write the report of these runs into the folder ``out`` and return its page.

        An earlier report there is replaced. ``by`` is the metric that runs are compared by;
        None: the objective of their scenario.

        Raises: UsageError: no run, runs that cannot be compared, ``out`` holds something else, or
        the metric is unknown.
        """
        return written_report(self.log.task_log, self.ids, out, by)

    def _joined(self, table: LogTable) -> pd.DataFrame:
        import pandas as pd

        from testbed.experiment.frames import read_table

        if not self._runs:
            raise UsageError(
                f"no run matches in {self.log.where}; `testbed runs list` shows all there are"
            )
        parts = []
        for run in self._runs:
            part = read_table(self.log.task_log, table, run.id)
            if "scheduler" not in part:
                # Of tasks the log has it: the one that decided, which may have changed in the run.
                part.insert(1, "scheduler", run.info.scheduler)
            parts.append(part)
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)

    def __getitem__(self, index: Any) -> Any:
        found = self._runs[index]
        return Runs(self.log, found) if isinstance(index, slice) else found

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"Runs({', '.join(self.ids)})"

    def _repr_html_(self) -> str:
        import pandas as pd

        found = self.table
        rows = [
            (*row, "" if pd.isna(rate) else f"{100 * rate:.1f} %", started[:19], label)
            for *row, rate, started, label in found.itertuples(index=False, name=None)
        ]
        return html.table(list(found.columns), rows)


def open_log(storage: str | os.PathLike[str] | None = None, *, create: bool = False) -> Log:
    """Open a task log.

    Args:
        storage: A file or a database URL; None: the log of the home, which all testbeds and
            simulations share unless told otherwise.
        create: Make one if there is none, to store simulations in.

    Raises:
        PrerequisiteMissing: there is none.
        UsageError: the URL cannot be understood.
        PermanentError: it is damaged, or of another version.
    """
    given = None if storage is None else os.fspath(storage)
    if create:
        from testbed.storage.tasklog import open_task_log

        url = home.choose_task_log(given)
        return Log(open_task_log(url), _shown(url))
    return Log(logs.open_log(given), _shown(home.choose_task_log(given)))


def _shown(url: str) -> str:
    return without_password(url)
