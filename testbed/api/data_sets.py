"""Data sets of logged runs: built, found, read and exported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from testbed.api import home, html, notices
from testbed.api.reading import Runs
from testbed.api.results import RunResult
from testbed.errors import PrerequisiteMissing, Problem, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from testbed.storage.dataset import DataSet

_LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "minari": ("minari", "gymnasium"),
    "minari-flat": ("minari", "gymnasium"),
    "rllib": ("ray", "gymnasium", "msgpack_numpy"),
}
"""Formats that need a library to be written, and which."""

Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


def root() -> Path:
    """Return the folder of the home's data sets."""
    return home.home() / home.DATA_SETS


def new_folder(name: str) -> Path:
    """Return where a new data set goes: names to the home, paths where they say."""
    return Path(name).expanduser() if "/" in name else root() / name


def folder_of(name: str) -> Path:
    """Return the folder of a data set that a user names.

    Raises: UsageError: there is none; says which there are.
    """
    from testbed.storage.dataset import list_data_sets

    given = Path(name).expanduser()
    for candidate in (root() / name, given):
        if candidate.is_dir():
            return candidate
    known = ", ".join(path.name for path, _ in list_data_sets(root())) or "none yet"
    raise UsageError(
        "there is no such data set",
        [Problem("dataset", repr(name), f"a folder, or of this home: {known}")],
    )


def exported(
    folder: Path,
    formats: Sequence[str],
    out: Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> dict[str, str]:
    """Write a data set for other tools, and return the folder of each format.

    Each library's format gets a folder of its own; the plain files share one. ``out`` None is
    ``NAME-FORMAT`` in the current folder.

    Raises:
        UsageError: an unknown format, or a folder is taken.
        PrerequisiteMissing: a format's library is not installed.
    """
    from testbed.storage.dataset.exports import FORMATS

    chosen = list(dict.fromkeys(formats))
    known = (*FORMATS, *_LIBRARIES)
    if unknown := [each for each in chosen if each not in known]:
        raise UsageError(
            "the export cannot be written",
            [Problem("--format", repr(each), f"one of {', '.join(known)}") for each in unknown],
        )
    _check_libraries(chosen)
    plain = tuple(each for each in chosen if each in FORMATS)
    targets = [("-".join(plain), plain)] if plain else []
    targets += [(each, (each,)) for each in chosen if each in _LIBRARIES]
    written: dict[str, str] = {}
    for label, names in targets:
        target = out or Path(f"{folder.name}-{label}")
        if out is not None and len(targets) > 1:
            target = out / label
        _write(folder, target, names, overwrite, progress)
        written.update(dict.fromkeys(names, str(target)))
    return written


def _write(
    folder: Path, target: Path, names: tuple[str, ...], overwrite: bool, progress: Progress
) -> None:
    if names[0] in _LIBRARIES:
        from trainer.data import export_minari, export_rllib

        if names[0] == "rllib":
            export_rllib(folder, target, overwrite=overwrite, progress=progress)
        else:
            flat = names[0] == "minari-flat"
            export_minari(folder, target, overwrite=overwrite, flat=flat, progress=progress)
        return
    from testbed.storage.dataset import export_data_set

    export_data_set(folder, target, formats=names, overwrite=overwrite, progress=progress)


def _check_libraries(chosen: Sequence[str]) -> None:
    for name in chosen:
        lacking = [
            each for each in _LIBRARIES.get(name, ()) if importlib.util.find_spec(each) is None
        ]
        if lacking:
            raise PrerequisiteMissing(
                f"the format {name} needs {', '.join(lacking)}",
                "pip install 'edge-testbed[train]'",
            )


class StoredDataSet:
    """A data set in its folder (docs/data-sets.md): transitions of logged runs."""

    def __init__(self, folder: Path, metadata: Mapping[str, Any]) -> None:
        self.folder = folder
        self.metadata = metadata

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    def load(self) -> DataSet:
        """Return it as checked arrays.

        M transitions, D features, A = N + 1 actions: ``obs`` [M, D], ``mask`` [M, A], ``action``
        [M], ``reward`` [M], ``next_obs`` [M, D], ``next_mask`` [M, A], ``terminated`` [M],
        ``truncated`` [M]; ``offsets`` [S + 1] are the first rows of the S sequences, one per
        episode and node.

        Raises: UsageError: it was altered or cannot be learned from; names every problem.
        """
        from testbed.storage.dataset import load

        return load(self.folder)

    @property
    def frame(self) -> pd.DataFrame:
        """A row per transition, columns as stored; features and masks are lists."""
        import pandas as pd

        files = sorted(self.folder.glob("*.parquet"))
        return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)

    def export(
        self,
        out: str | os.PathLike[str],
        format: str = "parquet",
        *,
        overwrite: bool = False,
    ) -> Path:
        """Write it for other tools into the folder ``out``, and return that folder.

        ``format`` is ``csv``, ``jsonl``, ``parquet``, ``minari``, ``minari-flat`` or ``rllib``.

        Raises:
            UsageError: an unknown format, or ``out`` is taken.
            PrerequisiteMissing: the format's library is not installed.
        """
        exported(self.folder, [format], Path(out), overwrite=overwrite)
        return Path(out)

    def __len__(self) -> int:
        return int(self.metadata["counts"]["rows"])

    def __repr__(self) -> str:
        return f"StoredDataSet({self.folder}, {len(self)} transitions)"

    def _repr_html_(self) -> str:
        metadata = self.metadata
        behaviour = metadata["behaviour_policies"]
        return html.facts(
            f"Data set {self.name}",
            [
                ("folder", self.folder),
                ("scenario", metadata.get("scenario")),
                ("encoder", metadata.get("encoder")),
                ("nodes", metadata.get("nodes")),
                *((key.replace("_", " "), value) for key, value in metadata["counts"].items()),
                ("behaviour", ", ".join(f"{each} ({n} rows)" for each, n in behaviour.items())),
            ],
        )


def build_data_set(
    runs: Runs | RunResult | Sequence[RunResult],
    out: str | None = None,
    *,
    encoder: str = "paper-v1",
    include_invalid: bool = False,
    overwrite: bool = False,
) -> StoredDataSet:
    """Make a data set of runs of one task log: one sequence per episode and node.

    Args:
        runs: Runs of a log, or results that share one; all of the same network.
        out: Name in the home, or a folder (with a slash); None: after the first run.
        encoder: Encoder of the observations.
        include_invalid: Also use runs that are invalid, degraded or incomplete.
        overwrite: Replace a data set of that name.

    Raises:
        UsageError: an unknown encoder, no run that can be used, runs of different networks, or
            ``out`` is taken.
    """
    from testbed.storage.dataset import build

    results = [runs] if isinstance(runs, RunResult) else [] if isinstance(runs, Runs) else runs
    stores = [runs.log] if isinstance(runs, Runs) else [each.store for each in results]
    ids = runs.ids if isinstance(runs, Runs) else [each.id for each in results]
    if not ids:
        raise UsageError("a data set needs a run at least")
    if any(store is not stores[0] for store in stores):
        raise UsageError(
            "these runs are in different task logs; simulate them with the same log=, or take "
            "them from one log with open_log().runs()"
        )
    folder = new_folder(out or f"{ids[0]}-{encoder}")
    metadata = build(
        stores[0].task_log,
        ids,
        encoder,
        folder,
        include_untrustworthy=include_invalid,
        overwrite=overwrite,
    )
    for left in metadata["left_out"]:
        notices.warn(f"run {left['id']} was left out: {left['reason']}")
    return StoredDataSet(folder, metadata)


def open_data_set(name: str | os.PathLike[str]) -> StoredDataSet:
    """Open a data set: its name in the home, or its folder.

    Raises: UsageError: there is none; says which there are.
    """
    from testbed.storage.dataset import show

    folder = folder_of(os.fspath(name))
    return StoredDataSet(folder, show(folder))
