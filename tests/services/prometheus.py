"""A real Prometheus that scrapes what a test serves on the loopback interface."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tests.services.ports import free_ports

START_S: Final = 60.0


def lacking() -> str | None:
    """What to install so that ``Prometheus`` works here; None if nothing."""
    return None if shutil.which("prometheus") else "install prometheus"


class Prometheus:
    """Scrapes ``jobs``, which are addresses by the name of a job, every 200 ms, in the block."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "prometheus.yml"
        self._settings.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
                    "scrape_configs": [
                        {"job_name": name, "static_configs": [{"targets": list(addresses)}]}
                        for name, addresses in jobs.items()
                    ],
                }
            )
        )
        (self._port,) = free_ports(1)
        self._data = folder / "data"
        self._log = folder / "log"

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._settings}",
                    f"--storage.tsdb.path={self._data}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise RuntimeError(f"prometheus did not start:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Values of an instant query, by the labels of each; fails if it is not understood."""
        answer = self._get(f"/api/v1/query?{urlencode({'query': expression})}")
        assert answer["status"] == "success", answer
        return {
            tuple(sorted(found["metric"].items())): float(found["value"][1])
            for found in answer["data"]["result"]
        }

    def targets(self) -> dict[str, str]:
        """Health of each target by its address: ``up`` or what was wrong at the last scrape."""
        found = self._get("/api/v1/targets")["data"]["activeTargets"]
        return {each["labels"]["instance"]: each["lastError"] or each["health"] for each in found}

    def until(self, expression: str, at_least: float) -> float:
        """Wait until the only value of a query is large enough; return it."""
        value = float("nan")
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            values = self.query(expression)
            if values:
                (value,) = values.values()
                if value >= at_least:
                    return value
            time.sleep(0.1)
        raise AssertionError(f"{expression} is {value} after {START_S:g} s; {self.targets()}")

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            return json.load(answer)
