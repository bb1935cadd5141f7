"""Policies that nodes fetch from a real HDFS while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from testbed.errors import TestbedError
from testbed.policies import save
from testbed.scenario.plan import Plan
from testbed.storage.artifacts.webhdfs import WebHdfsArtifactStore
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench
from tests.policies import tiny

pytestmark = pytest.mark.hdfs

BringUp = Callable[[Plan], Bench]


def test_nodes_fetch_a_policy_and_refuse_one_that_was_truncated(
    bring_up: BringUp, webhdfs_url: str
) -> None:
    bench = bring_up(replace(small_plan(2, slots=400), artifacts_url=webhdfs_url))
    keys = [save(webhdfs_url, *tiny.per_destination(name)) for name in ("first", "second")]
    store = WebHdfsArtifactStore(webhdfs_url)
    path = f"{store.place.path}/{keys[1]}/actor.onnx"
    store._client.write(path, data=store.get(keys[1])["actor.onnx"][:100], overwrite=True)

    run = bench.operator.start_run(scheduler="drl", options={"policy": keys[0]})
    bench.until(run, lambda progress: progress.ended >= 4)
    try:
        answer = bench.operator.deploy_policy(keys[1])
    except TestbedError as error:
        said = str(error)
    else:
        assert not answer.complete
        said = str(answer)
    assert "100 bytes instead of" in said
    assert bench.operator.status().policy != keys[1]
    seen = bench.until(run, lambda progress: True).ended
    bench.until(run, lambda progress: progress.ended >= seen + 8)
    bench.operator.stop_run()
    assert bench.end(run).lost == 0
