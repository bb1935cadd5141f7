"""Metrics of a training as a CSV file and for TensorBoard, both continued after a restart."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter


class Curves:
    """Appends rows of numbers to ``metrics.csv`` and a TensorBoard log in ``folder``.

    The first row fixes the columns; a later row with an unknown name adds a column by rewriting
    the file, which is small. Rows up to step ``keep_until`` are kept and later ones dropped,
    because a resumed training writes them again; None starts a new file.
    """

    def __init__(self, folder: Path, *, keep_until: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.csv"
        self._rows: list[dict[str, str]] = []
        if keep_until is not None and self._path.exists():
            with self._path.open(newline="") as stream:
                self._rows = [
                    row for row in csv.DictReader(stream) if int(row["step"]) <= keep_until
                ]
        self._columns = list(self._rows[0]) if self._rows else ["step"]
        self._rewrite()
        purge = None if keep_until is None else keep_until + 1
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()

    @property
    def last_step(self) -> int:
        """Step of the last row; -1 if there is none."""
        return int(self._rows[-1]["step"]) if self._rows else -1

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one row; it is on disk when this returns."""
        row = {"step": str(step)} | {name: repr(float(v)) for name, v in metrics.items()}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
        else:
            with self._path.open("a", newline="") as stream:
                csv.DictWriter(stream, self._columns, restval="").writerow(row)
        for name, value in metrics.items():
            self._board.add_scalar(name, float(value), step)

    def _rewrite(self) -> None:
        with self._path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
