"""The folder of learning that goes on: what was run, decided and learned, so that it can go on.

``learn.json`` is written after every run and every update. Learning is repeated from it: runs that
are done are not run again, and what was learned from a run is computed again, with equal weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from testbed.errors import PermanentError, Problem, UsageError, differences
from testbed.experiment.live.settings import LiveConfig
from testbed.files import LOCK, ORDINARY, write_atomically

STATE: Final = "learn.json"
CURVE: Final = "curve.csv"
_MAY_CHANGE: Final = ("episodes", "patience", "include_invalid")
"""Settings that may differ where learning goes on."""

Ended: TypeAlias = Literal["", "budget", "plateau"]


@dataclass(frozen=True, slots=True)
class Point:
    """One policy of the learning curve, after its gate.

    ``episodes`` were run in all when it was evaluated. ``rates`` are by number of the episodes of
    the gate, which are the same for all points. ``learned`` has the facts of its update.
    """

    number: int
    policy: str
    episodes: int
    rates: Mapping[int, float]
    verdict: Mapping[str, Any] | None = None
    collected: float | None = None
    learned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether it replaced the one before it; the start did."""
        return self.verdict is None or bool(self.verdict["accepted"])

    @property
    def mean(self) -> float:
        """Mean success rate of its episodes."""
        return sum(self.rates.values()) / max(1, len(self.rates))

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Point:
        """Inverse of ``document``."""
        rates = {int(number): float(rate) for number, rate in document["rates"].items()}
        return cls(**{**document, "rates": rates})


@dataclass(slots=True)
class LiveState:
    """State of learning in its folder.

    ``runs`` are the ids of finished runs by what they were for, ``lengths`` their numbers of
    episodes. ``points`` are all policies that were evaluated, in order, the start first.
    """

    folder: Path
    identity: dict[str, Any]
    runs: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    ended: Ended = ""
    seconds: float = 0.0

    @classmethod
    def claim(
        cls, folder: Path, scenario_hash: str, driver: str, config: LiveConfig, *, resume: bool
    ) -> LiveState:
        """Return the state in ``folder``, or a new one; without ``resume`` an old one is removed.

        Raises:
            UsageError: it is of other settings or another network.
            PermanentError: it cannot be read.
        """
        chosen = {k: v for k, v in config.document().items() if k not in _MAY_CHANGE}
        identity = {"scenario_hash": scenario_hash, "driver": driver, **chosen}
        state = cls(folder, json.loads(json.dumps(identity)))
        path = folder / STATE
        if path.exists() and resume:
            state._read(path)
        elif path.exists():
            path.unlink()
            (folder / CURVE).unlink(missing_ok=True)
        return state

    @property
    def spent(self) -> int:
        """Episodes that were run so far."""
        return sum(self.lengths.values())

    @property
    def current(self) -> Point:
        """The policy that decides now: the last that was accepted."""
        return [point for point in self.points if point.accepted][-1]

    @property
    def best(self) -> Point:
        """The accepted policy with the highest mean; of equal ones the later."""
        accepted = [point for point in self.points if point.accepted]
        return max(accepted, key=lambda point: (point.mean, point.number))

    def note_run(self, key: str, run: str, episodes: int) -> None:
        """Enter a finished run, and save."""
        self.runs[key], self.lengths[key] = run, episodes
        self.save()

    def save(self) -> None:
        """Write the state to the folder."""
        document = {
            "identity": self.identity,
            "runs": self.runs,
            "lengths": self.lengths,
            "points": [point.document() for point in self.points],
            "ended": self.ended,
            "seconds": round(self.seconds, 1),
        }
        text = json.dumps(document, indent=2) + "\n"
        write_atomically(self.folder / STATE, text, ORDINARY)

    def _read(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            theirs = dict(stored["identity"])
            self.runs, self.lengths = dict(stored["runs"]), dict(stored["lengths"])
            self.points = [Point.of(each) for each in stored["points"]]
            self.seconds = float(stored["seconds"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PermanentError(
                f"{path} cannot be read ({error}); start over with --anew"
            ) from error
        problems = differences(f"{path}: ", self.identity, theirs)
        if problems:
            raise UsageError(
                f"{self.folder} holds learning with other settings; choose another --out, or start "
                "over with --anew",
                problems,
            )


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something else than the state of learning; write nothing.

    Raises:
        UsageError: it does.
    """
    if not folder.exists() or (folder / STATE).exists():
        return
    if not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty",
            [Problem("--out", "holds something else", "an empty or a new folder")],
        )
