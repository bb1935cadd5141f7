"""What every test runs under: missing services, reproducible properties, no display.

A test marked ``mysql``, ``hdfs``, ``kustomize``, ``docker``, ``prometheus``, ``browser`` or
``cluster`` is skipped where its service is not there; with ``CI=true`` it fails instead, so that
nothing passes there without having run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from functools import cache

import hypothesis
import pytest

from tests.services import hdfs, kustomize, mariadb, prometheus

pytest_plugins = ["tests.services.fixtures"]

# A conformance suite ships in the package; its asserts should explain themselves like any test's.
pytest.register_assert_rewrite("testbed.testing")

# Before anything imports matplotlib: a machine that runs tests may have no display.
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(params=["grpc", "local", "trunk"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries messages between nodes: a test that uses it runs with each."""
    from tests.edgenode import network

    name: str = request.param
    monkeypatch.setattr(network, "carrier", name)
    return name


IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

# No deadline per example: on a busy machine it fails examples that are right.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def _needs_mysql() -> str | None:
    lacks = None if os.environ.get(mariadb.URL_VARIABLE) else mariadb.lacking()
    return lacks and f"set {mariadb.URL_VARIABLE}, or {lacks}"


def _needs_hdfs() -> str | None:
    lacks = None if os.environ.get(hdfs.URL_VARIABLE) else hdfs.lacking()
    return lacks and f"set {hdfs.URL_VARIABLE}, or {lacks}"


@cache
def _needs_docker() -> str | None:
    if not shutil.which("docker"):
        return "install Docker"
    asked = subprocess.run(["docker", "info"], capture_output=True, timeout=120)
    return "start the Docker engine; `docker info` says more" if asked.returncode else None


def _needs_browser() -> str | None:
    # Loaded where a test needs it: the library that drives a browser is not small.
    from tests.services import chromium

    return chromium.lacking()


def _needs_cluster() -> str | None:
    if os.environ.get("TESTBED_TEST_KUBECONFIG") or (shutil.which("kind") and not _needs_docker()):
        return None
    return "set TESTBED_TEST_KUBECONFIG, or install docker and kind"


SERVICES: dict[str, Callable[[], str | None]] = {
    "mysql": _needs_mysql,
    "hdfs": _needs_hdfs,
    "kustomize": kustomize.lacking,
    "docker": _needs_docker,
    "prometheus": prometheus.lacking,
    "browser": _needs_browser,
    "cluster": _needs_cluster,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(map(item.get_closest_marker, ("hdfs", "kustomize"))):
            # The first test that needs it may have to fetch the jars, or to build it.
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report travel from the process that made it: what is no Unicode is written out."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in SERVICES.items():
        if item.get_closest_marker(marker) is None:
            continue
        if fix := missing():
            message = f"no {marker} here; {fix}"
            if IN_CI:
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
