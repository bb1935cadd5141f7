"""The command lines that do what the buttons of the live page do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

_FAULT_OPTIONS = {
    "for": "--for",
    "nodes": "--nodes",
    "from": "--from",
    "to": "--to",
    "factor": "--factor",
    "failureRate": "--failure-rate",
    "mode": "--mode",
}
"""Options of ``testbed fault inject``, by the keys of a scenario."""


class Commands:
    """Command lines for the testbed ``name``; ``options`` stand at the end of each."""

    def __init__(self, name: str, options: str = "") -> None:
        self._end = "".join(
            f" {each}" for each in ("" if name == "default" else f"--name {name}", options) if each
        )

    def run(
        self, scheduler: str, episodes: int | None, label: str = "", first_episode: int = 0
    ) -> str:
        """Return the command that starts a run."""
        words = ["testbed", "run"]
        if scheduler:
            words += ["--scheduler", scheduler]
        if episodes:
            words += ["--episodes", str(episodes)]
        if first_episode:
            words += ["--first-episode", str(first_episode)]
        if label:
            words += ["--label", label]
        return self._line(words)

    def stop(self, run: str) -> str:
        """Return the command that ends a run."""
        return self._line(["testbed", "stop", run])

    def scheduler(self, scheduler: str, nodes: Sequence[int]) -> str:
        """Return the command that changes the scheduler."""
        return self._line(["testbed", "scheduler", "set", scheduler, *_nodes(nodes)])

    def deploy(self, policy: str, nodes: Sequence[int]) -> str:
        """Return the command that deploys a policy."""
        return self._line(["testbed", "policy", "deploy", policy, *_nodes(nodes)])

    def roll_back(self) -> str:
        """Return the command that undoes a deploy."""
        return self._line(["testbed", "policy", "rollback"])

    def kill(self, node: int) -> str:
        """Return the command that ends a node."""
        return self._line(["testbed", "kill", str(node)])

    def inject(self, entry: Mapping[str, object]) -> str:
        """Return the command that injects the fault with these keys of a scenario."""
        words = ["testbed", "fault", "inject", str(entry["kind"])]
        for key, option in _FAULT_OPTIONS.items():
            value = entry.get(key)
            if value is None or value == "":
                continue
            told = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += [option, told]
        if entry.get("bothWays"):
            words.append("--both-ways")
        return self._line(words)

    def clear_faults(self) -> str:
        """Return the command that releases all faults by hand."""
        return self._line(["testbed", "fault", "clear"])

    def logs(self, node: int) -> str:
        """Return the command that follows the log of a node."""
        return self._line(["testbed", "logs", str(node), "--follow"])

    def compare(self) -> str:
        """Return the command that compares the runs of the testbed."""
        return self._line(["testbed", "compare"])

    def up(self) -> str:
        """Return the command that brings such a testbed up."""
        return self._line(["testbed", "up", "quickstart"])

    def _line(self, words: Sequence[str]) -> str:
        return shlex.join(words) + self._end


def _nodes(nodes: Sequence[int]) -> list[str]:
    return ["--nodes", ",".join(map(str, nodes))] if nodes else []
