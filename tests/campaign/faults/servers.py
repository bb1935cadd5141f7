"""Servers of the task log and of policies killed and held up."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import requests

from testbed.errors import TestbedError
from testbed.policies import save
from tests.campaign.checks import Expected
from tests.campaign.processes import rest, until
from tests.campaign.scene import Scene, fault
from tests.policies import tiny
from tests.services.hdfs import Hdfs

SERVER_S = 180.0


@fault("kill-mariadb", "mysql")
def kill_mariadb(scene: Scene) -> Expected:
    """The server is away for a while; nothing is lost."""
    server = scene.services.mariadb(scene.network)
    seconds = scene.pause_s()
    server.kill()
    try:
        rest(seconds)
    finally:
        server.start()
    return Expected(note=f"{seconds:.1f} s")


@fault("pause-mariadb", "mysql")
def pause_mariadb(scene: Scene) -> Expected:
    server = scene.services.mariadb(scene.network)
    seconds = scene.pause_s()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        rest(seconds)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    return Expected(note=f"{seconds:.1f} s")


def _writable(server: Hdfs) -> bool | None:
    try:
        written = server.request("PUT", "/ready", data=b"yes", op="CREATE", overwrite="true")
    except requests.RequestException:
        return None
    return True if written.status_code == 201 else None


def _deploying(scene: Scene, *, kill: bool) -> Expected:
    """Deploy while the NameNode is away: all nodes or none, and the run goes on."""
    with scene.services.hdfs() as server:
        card, actor = tiny.per_destination(f"hdfs-{scene.trial.number}", own=1.0)
        save(scene.network.variables["TESTBED_ARTIFACTS"], card, actor)
        seconds = scene.pause_s()
        with ThreadPoolExecutor(1) as pool:
            if kill:
                server.kill_namenode()
            else:
                os.kill(server.namenode_pid, signal.SIGSTOP)
            try:
                deploy = pool.submit(scene.network.do, "policy", "deploy", card.id)
                rest(seconds)
            finally:
                if kill:
                    server.start_namenode(wait=False)
                else:
                    os.kill(server.namenode_pid, signal.SIGCONT)
            done = deploy.result()
        if kill:
            # The next trial needs it; a busy machine takes its time.
            until("HDFS is back", lambda: _writable(server), SERVER_S)
        problems = []
        if done.code not in (0, 2, 3, 4, 5):
            problems.append(f"`{done.line}` ended with {done.code}: {done.err}")
        try:
            with scene.network.operator() as client:
                status = client.status()
        except TestbedError as error:
            problems.append(f"the controller does not answer: {error}")
        else:
            deployed = status.policy.endswith(card.id)
            if deployed != (done.code == 0):
                problems.append(f"deploy ended with {done.code}, the policy is {status.policy!r}")
    return Expected(problems=tuple(problems), note=f"{seconds:.1f} s, deploy ended {done.code}")


@fault("kill-namenode", "hdfs")
def kill_namenode(scene: Scene) -> Expected:
    return _deploying(scene, kill=True)


@fault("pause-namenode", "hdfs")
def pause_namenode(scene: Scene) -> Expected:
    return _deploying(scene, kill=False)
