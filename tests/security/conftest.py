"""A testbed of this machine, and another user of it who attacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.testing.runtime import small_plan
from tests.conftest import IN_CI

NOBODY = 65534
"""The user id that attacks run under."""

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def another_user() -> int:
    """The id of another user than the one that tests run as."""
    if os.geteuid() != 0:
        reason = "only root can become another user"
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return NOBODY


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A testbed of two nodes."""
    runtime = LocalRuntime(tmp_path_factory.mktemp("attacked") / "home")
    yield runtime.up(small_plan(slots=100), "attacked")
    runtime.down("attacked")


Attack = Callable[..., Any]


@pytest.fixture
def attack(another_user: int) -> Attack:
    """Runs a program as another user of the machine; what it puts into ``result``.

    It finds what it is given in ``given``, and everything that tests may import.
    """
    # Imported before it becomes another user, who may not even read the interpreter's own files.
    begin = textwrap.dedent(
        """
        import json, os, socket, stat, sys
        import grpc, psutil
        from pathlib import Path
        from grpc_health.v1 import health_pb2, health_pb2_grpc
        from testbed.rpc.generated import edge_pb2 as pb, edge_pb2_grpc as pb_grpc
        from testbed.rpc.authorization import ALLOWED
        given = json.loads(sys.argv[1])
        # No descriptor, group or folder of the first user is kept.
        os.chdir("/")
        os.setgroups([])
        os.setgid(given["uid"])
        os.setuid(given["uid"])
        assert os.geteuid() == given["uid"]
        result = None
        """
    )

    def run(program: str, **given: Any) -> Any:
        text = f"{begin}\n{textwrap.dedent(program)}\nprint(json.dumps(result))"
        done = subprocess.run(
            [sys.executable, "-c", text, json.dumps({"uid": another_user, **given})],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "GRPC_VERBOSITY": "NONE"},
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
