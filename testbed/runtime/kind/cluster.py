"""One kind cluster of a home: made if it is not there, used again if this home made it, deleted.

Whose a cluster is stands on its containers (``config``); that it is whole stands in a file on its
first node, written when kind has finished. So nothing is lost with the command that made it, and
what such a command left incomplete is told from the whole one and made anew. A cluster of the same
name that something else made is never touched, by no call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    TemporaryError,
    TestbedError,
    UsageError,
)
from testbed.runtime import directory
from testbed.runtime.base import Lack, Report, valid_name
from testbed.runtime.kind import config, images, preflight
from testbed.runtime.kind import engine as engines
from testbed.runtime.kind.command import run, stream
from testbed.runtime.kind.config import KindSettings
from testbed.runtime.kind.engine import KindNode, docker
from testbed.runtime.kind.images import Loaded
from testbed.runtime.kind.preflight import Preflight
from testbed.runtime.kubernetes.rendering import Requests

NAME: Final = "edge-testbed"
NOTHING: Final = Requests()
CREATE_S: Final = 1200.0
"""Bound on making a cluster: systemd, kubeadm and kubelets of all nodes on a slow machine."""
READY: Final = "120s"
"""Time that kind waits for the control plane before it goes on."""
PULL_S: Final = 1800.0
STARTED_S: Final = 120.0
"""Time that a node gets from its start until it answers."""
_TELL_EVERY_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.5
WHOLE: Final = "/kind/edge-testbed-whole"
_STEP: Final = re.compile(r"^\s*•\s*(.*?)\s*(\.\.\.)?\s*$")
_PICTURE: Final = re.compile(r"[^\x00-\x7f≤]+")
_COMMAND: Final = re.compile(r'(command "\S+ \S+) [^"]*"')
_CHOSEN: Final = "using docker due to KIND_EXPERIMENTAL_PROVIDER"
_TAIL: Final = 12
_ERROR: Final = "ERROR: "
_NOISE: Final = re.compile(
    r"(Command Output: )?[IW]\d{4} "  # what kubeadm says of its steps
    r"|Stack Trace|\s+\S+\.(go|s):\d+|(k8s\.io|sigs\.k8s\.io|github\.com|main|runtime)[./]"
)


class KindCluster:
    """The kind cluster ``name`` of ``home``.

    Below ``home/kind/name`` are its kubeconfig, the configuration kind was given and what kind
    said; all of it can be made again.

    Raises (every call): PrerequisiteMissing: Docker or kind is missing, does not run or may not be
    used. UsageError: ``name`` is no legal name.
    """

    def __init__(self, home: Path, name: str = NAME) -> None:
        self.home = home.absolute()
        self.name = valid_name(name)
        self.folder = self.home / "kind" / name
        self.kubeconfig = self.folder / "kubeconfig"
        self.context = f"kind-{name}"
        self._lock = self.home / "kind" / f".{name}.lock"

    @property
    def remove_command(self) -> str:
        """The command that removes it with everything on it, whether it answers or not."""
        return f"kind delete cluster --name {self.name}"

    # --- looking ----------------------------------------------------------------------------

    def check(
        self, settings: KindSettings | None = None, *, wanted: Requests = NOTHING, pull: bool = True
    ) -> tuple[Lack, ...]:
        """Return what keeps a cluster of ``settings`` from running pods that request ``wanted``.

        Without ``settings``: the one that is there, else the smallest. ``pull``: the node image may
        be pulled. Changes nothing, and raises nothing it can return.
        """
        return self.preflight(settings, wanted=wanted, pull=pull).lacks

    def preflight(
        self, settings: KindSettings | None = None, *, wanted: Requests = NOTHING, pull: bool = True
    ) -> Preflight:
        """Return what ``check`` does, and what would only make it work better."""
        nodes: tuple[KindNode, ...] = ()
        try:
            engine = engines.engine()
            nodes = engines.nodes(self.name)
            if settings is None:
                settings = KindSettings(workers=sum(node.role == "worker" for node in nodes))
            found = preflight.examine(
                settings, exists=bool(nodes), wanted=wanted, pull=pull, engine=engine
            )
        except TestbedError as error:
            found = Preflight((preflight.lack_of(error),))
        lacks = preflight.kind_program(settings or KindSettings(), exists=bool(nodes))
        return Preflight((*lacks, *found.lacks), found.cautions)

    def exists(self) -> bool:
        """Return whether a cluster of this name exists, complete or not, made by anyone."""
        return bool(engines.nodes(self.name))

    def owned(self) -> bool:
        """Return whether there is one that this home made."""
        nodes = engines.nodes(self.name)
        return bool(nodes) and not self._foreign(nodes)

    def nodes(self) -> tuple[KindNode, ...]:
        """Return its nodes by name; empty if there is no cluster, or one made by something else."""
        nodes = engines.nodes(self.name)
        return () if self._foreign(nodes) else nodes

    # --- changing ---------------------------------------------------------------------------

    def ensure(
        self,
        settings: KindSettings | None = None,
        *,
        merge_into: Path | None = None,
        pull: bool = True,
        retain: bool = False,
        report: Report = lambda line: None,
    ) -> Path:
        """Create the cluster of ``settings`` if needed; return the path of a kubeconfig for it.

        Makes it if it is not there; what was left incomplete is removed first. One that is there is
        used as it is, its stopped nodes started; without ``settings`` any of ours will do. When it
        fails or is interrupted, nothing is left, or with ``retain`` the failed cluster, for a look
        at it. ``merge_into`` is a kubeconfig that gets the context too; it becomes the current one
        only where there was none.

        Raises:
            UsageError: the settings cannot be, are not those of the cluster that is there, or that
                is not ours; another command is busy with it.
            PrerequisiteMissing: also if the node image is not on this machine and cannot be pulled.
            PermanentError: kind failed; the message shows the end of what it said.
            TemporaryError: it did not end in time.
        """
        wanted = settings or KindSettings()
        wanted.validate()
        if ":" in str(self.folder):
            raise UsageError(
                f"{self.home} has a colon in its name, which the container engine cannot mount",
                fix="name another home: --home DIR or TESTBED_HOME",
            )
        with self._locked() as held:
            nodes = engines.nodes(self.name)
            if nodes:
                self._refuse_foreign(nodes)
                if self._whole(nodes):
                    if settings is not None:
                        self._refuse_other(nodes, settings)
                    self._start(nodes, report)
                else:
                    report(f"removing kind cluster '{self.name}', which is incomplete")
                    self._remove()
                    nodes = ()
            if not nodes:
                self._create(wanted, held, pull=pull, retain=retain, report=report)
            if merge_into is not None:
                self._merge(merge_into)
        return self.kubeconfig

    def start_stopped(self, report: Report = lambda line: None) -> bool:
        """Start the nodes of a complete cluster that do not run; return whether there is one.

        Raises:
            UsageError: it is not ours; another command is busy with it.
            TemporaryError: a node does not answer in time.
        """
        with self._locked():
            nodes = engines.nodes(self.name)
            self._refuse_foreign(nodes)
            if not self._whole(nodes):
                return False
            self._start(nodes, report)
        return True

    def find_images(self, wanted: Sequence[str]) -> dict[str, str]:
        """Return the engine's ids of these images, by name.

        Raises: PrerequisiteMissing: the engine has not got one of them; names all that are missing.
        """
        return images.identities(wanted)

    def load_images(self, wanted: Sequence[str], report: Report = lambda line: None) -> Loaded:
        """Load these images of the engine onto every node; moves only what is not there yet.

        Raises:
            UsageError: there is no cluster, or it is not ours; another command is busy with it.
            PrerequisiteMissing: the engine has not got one of them.
            PermanentError: one could not be loaded.
        """
        with self._locked():
            nodes = engines.nodes(self.name)
            if not nodes:
                raise UsageError(f"there is no kind cluster '{self.name}'")
            self._refuse_foreign(nodes)
            return images.load(self.name, nodes, wanted, report)

    def delete(self, report: Report = lambda line: None) -> bool:
        """Delete the cluster and what this home keeps of it; whether there was one.

        Idempotent. When it returns, no container of it is left.

        Raises:
            UsageError: it is not ours; another command is busy with it.
            PermanentError: a container cannot be removed; names it.
        """
        nodes = engines.nodes(self.name)
        if not nodes and not self.folder.exists() and not self._lock.exists():
            return False
        with self._locked():
            nodes = engines.nodes(self.name)
            self._refuse_foreign(nodes)
            if nodes:
                report(f"deleting kind cluster '{self.name}' ({len(nodes)} nodes)")
            self._remove()
            with directory.writing(self.folder), suppress(FileNotFoundError):
                shutil.rmtree(self.folder)
        with suppress(OSError):
            self._lock.parent.rmdir()
        return bool(nodes)

    # --- whose it is, and how it is ---------------------------------------------------------

    def _is_ours(self, node: KindNode) -> bool:
        return node.mark is not None and (
            node.mark.folder == self.folder
            # One folder may have several names.
            or os.path.realpath(node.mark.folder) == os.path.realpath(self.folder)
        )

    def _foreign(self, nodes: Sequence[KindNode]) -> list[KindNode]:
        return [node for node in nodes if not self._is_ours(node)]

    def _ours(self) -> list[KindNode]:
        return [node for node in engines.nodes(self.name) if self._is_ours(node)]

    def _refuse_foreign(self, nodes: Sequence[KindNode]) -> None:
        if not (foreign := self._foreign(nodes)):
            return
        mark = foreign[0].mark
        if mark is None:
            raise UsageError(
                f"there is a kind cluster '{self.name}' that edge-testbed did not make and "
                f"does not change ({', '.join(node.name for node in foreign)})",
                fix="to run on it: "
                f"--runtime cluster --context {self.context}; or remove it manually: "
                f"{self.remove_command}",
            )
        home = mark.folder.parent.parent
        raise UsageError(
            f"kind cluster '{self.name}' was made for another home, {home}",
            fix=f"to use or delete it name that: --home {home}",
        )

    def _refuse_other(self, nodes: Sequence[KindNode], settings: KindSettings) -> None:
        digests = {node.mark.digest for node in nodes if node.mark is not None}
        if digests != {settings.digest}:
            raise UsageError(
                f"kind cluster '{self.name}' exists with other settings ({_described(nodes)})",
                fix="use the --workers and deployment.kind.nodeImage it was created with, or "
                "delete it first: testbed teardown",
            )
        if len(nodes) != settings.nodes:
            raise PermanentError(
                f"kind cluster '{self.name}' had {settings.nodes} nodes and has only "
                f"{', '.join(node.name for node in nodes)}",
                fix="delete it and bring it up again: testbed teardown",
            )

    def _whole(self, nodes: Sequence[KindNode]) -> bool:
        """Return whether kind had finished with these nodes."""
        first = next((node for node in nodes if node.role == "control-plane"), None)
        if first is None or first.state == "created":
            return False
        if first.running:
            asked = run("docker", "exec", first.id, "test", "-f", WHOLE, timeout=engines.ASK_S)
            if asked.code in (0, 1) and not asked.stderr.strip():
                return asked.code == 0
        # Of one that does not run, or is about to end, only files can be had.
        asked = run("docker", "cp", f"{first.id}:{WHOLE}", "-", timeout=engines.ASK_S)
        if asked.code and not re.search("could not find|no such", asked.stderr.lower()):
            raise engines.refused(asked, "docker cp")
        return asked.code == 0

    # --- making it --------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with directory.lock(self._lock, f"kind cluster '{self.name}'") as held:
            yield held

    def _prepare(self, settings: KindSettings, image: str) -> Path:
        """Write what kind is given; the path of its configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        owner = config.owner_folder(self.folder, settings)
        owner.mkdir(exist_ok=True)
        said = {"format": config.FORMAT, "cluster": self.name, "digest": settings.digest}
        with suppress(PermissionError):
            # The engine creates it again, as its own, for nodes that start when it is gone.
            (owner / "owner").write_text(json.dumps(said) + "\n", encoding="utf-8")
        path = self.folder / "config.yaml"
        text = settings.render(self.name, owner, node_image=image)
        path.write_text(text, encoding="utf-8")
        return path

    def _create(
        self, settings: KindSettings, held: int, *, pull: bool, retain: bool, report: Report
    ) -> None:
        image = self._node_image(settings, pull, report)
        with directory.writing(self.folder):
            path = self._prepare(settings, image)
            self.kubeconfig.unlink(missing_ok=True)
            log = (self.folder / "create.log").open("w", encoding="utf-8")
        said: list[str] = []

        def heard(line: str) -> None:
            if line == _CHOSEN:
                return
            said.append(line)
            with suppress(OSError):
                log.write(f"{line}\n")
                log.flush()
            if (step := _STEP.match(line)) is not None:
                report(f"kind: {_PICTURE.sub('', step[1]).strip()}")

        report(f"creating kind cluster '{self.name}' with {settings.nodes} nodes")
        try:
            with log:
                code = stream(
                    *("kind", "create", "cluster", "--name", self.name, "--config", str(path)),
                    *("--kubeconfig", str(self.kubeconfig), "--wait", READY),
                    *(("--retain",) if retain else ()),
                    timeout=CREATE_S,
                    heard=heard,
                    started=lambda pid: directory.lock_note(held, pid),
                    inherited=(held,),
                )
            if code:
                raise self._failure(said)
            directory.lock_note(held, os.getpid())
            first = next(n for n in engines.nodes(self.name) if n.role == "control-plane")
            docker("exec", first.id, "touch", WHOLE)
            self.kubeconfig.chmod(0o600)
        except BaseException as error:
            # Ctrl-C too. If it comes once more, what is left is the next call's to remove.
            if retain and isinstance(error, TestbedError):
                error.add_note(
                    f"the cluster is kept for a look at it: kind export logs --name {self.name}; "
                    "the next `testbed up` creates it again, `testbed teardown` removes it"
                )
                raise
            report(f"removing the remains of kind cluster '{self.name}'")
            try:
                self._remove()
            except TestbedError as left:
                error.add_note(str(left))
            raise

    def _node_image(self, settings: KindSettings, pull: bool, report: Report) -> str:
        """Return the engine's name for the node image, which is pulled if needed."""
        wanted = settings.node_image
        if (here := preflight.local_node_image(wanted)) is not None:
            return here
        if not pull:
            raise PrerequisiteMissing(
                f"the node image {wanted} is not on this machine", preflight.node_image_fix(wanted)
            )
        report(f"pulling the node image {wanted.partition('@')[0]} (about 400 MB, once)")
        said: list[str] = []
        if stream("docker", "pull", wanted, timeout=PULL_S, heard=said.append):
            reason = next((line for line in reversed(said) if line.strip()), "docker pull failed")
            raise PrerequisiteMissing(
                f"the node image {wanted} is not on this machine and cannot be pulled: "
                f"{reason.strip()}",
                preflight.node_image_fix(wanted),
            )
        return wanted

    def _failure(self, said: Sequence[str]) -> TestbedError:
        """Return the error that a failure of kind means, from its output."""
        text = "\n".join(said)
        for sign, what, fix in _FAILURES:
            if re.search(sign, text, re.IGNORECASE):
                return PrerequisiteMissing(
                    f"kind cannot make cluster '{self.name}': {what}",
                    f"{fix} (full output: {self.folder / 'create.log'})",
                )
        error, lines = essence(said)
        return PermanentError(
            f"kind cannot make cluster '{self.name}': {error}"
            + "".join(f"\n  | {line}" for line in lines)
            + "\n",
            fix=f"the whole output: {self.folder / 'create.log'}; to look at the cluster, keep it: "
            "--keep-on-failure",
        )

    def _start(self, nodes: Sequence[KindNode], report: Report) -> None:
        """Start those that do not run, and write the kubeconfig, whose port changes with that."""
        self._start_stopped(nodes, report)
        with directory.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        self._export(self.kubeconfig)
        self.kubeconfig.chmod(0o600)

    def _start_stopped(self, nodes: Sequence[KindNode], report: Report) -> None:
        stopped = [node for node in nodes if not node.running]
        if not stopped:
            return
        # Workers look for the control plane.
        stopped.sort(key=lambda node: (node.role != "control-plane", node.name))
        report(f"starting {', '.join(node.name for node in stopped)}")
        for node in stopped:
            verb = "unpause" if node.state == "paused" else "start"
            docker(verb, node.id, timeout=engines.CHANGE_S)
        for node in stopped:
            self._await_images(node, report)

    def _await_images(self, node: KindNode, report: Report) -> None:
        """Return when a node that was started answers about its images, which systemd sees to.

        Raises: TemporaryError: it does not in time.
        """
        began, told = time.monotonic(), 0.0
        while True:
            asked = run("docker", "exec", node.id, *images.LIST, timeout=engines.ASK_S)
            if asked.code == 0:
                return
            passed = time.monotonic() - began
            if passed > STARTED_S:
                raise TemporaryError(
                    f"{node.name} was started, and its containerd does not answer after "
                    f"{passed:.0f} s ({asked.said})",
                    fix=f"see docker logs {node.name}; or delete the cluster: "
                    f"{self.remove_command}",
                )
            if passed - told >= _TELL_EVERY_S:
                told = passed
                report(f"waiting for {node.name} to start, for {passed:.0f} s so far")
            time.sleep(_LOOK_EVERY_S)

    # --- kubeconfigs ------------------------------------------------------------------------

    def _export(self, path: Path) -> None:
        exported = run(
            *("kind", "export", "kubeconfig", "--name", self.name, "--kubeconfig", str(path)),
            timeout=engines.ASK_S,
        )
        if exported.code:
            raise PermanentError(
                f"kind gives no kubeconfig for cluster '{self.name}': {exported.said}",
                fix=f"if its nodes do not start, delete it: {self.remove_command}",
            )

    @property
    def _merged(self) -> Path:
        return self.folder / "merged.json"

    def _merged_into(self) -> list[str]:
        with suppress(OSError, ValueError):
            return [str(path) for path in json.loads(self._merged.read_text(encoding="utf-8"))]
        return []

    def _merge(self, path: Path) -> None:
        path = path.expanduser().absolute()
        with directory.writing(self.folder):
            # Noted first: an entry that is not there is removed as easily.
            noted = sorted({*self._merged_into(), str(path)})
            self._merged.write_text(json.dumps(noted), encoding="utf-8")
        before = _current_context(path)
        self._export(path)
        if before and before != self.context:
            # kind makes its context the current one; what kubectl talks to is the user's choice.
            text = path.read_text(encoding="utf-8")
            path.write_text(_CURRENT.sub(f"current-context: {before}", text), encoding="utf-8")

    # --- removing it ------------------------------------------------------------------------

    def _remove(self) -> None:
        """Remove what is ours of it, whole or not, and prove that nothing is left."""
        for path in self._merged_into() or [str(self.kubeconfig)]:
            # While a node of ours exists, no other cluster has the name: kind can only delete ours.
            if not self._foreign(engines.nodes(self.name)):
                with suppress(TestbedError):
                    run(
                        *("kind", "delete", "cluster", "--name", self.name, "--kubeconfig", path),
                        timeout=engines.CHANGE_S,
                    )
        # The proof; and what kind did not do, were it only because it is not installed any more.
        said, left = "", self._ours()
        for _ in range(3):
            if not left:
                break
            said = run(
                *("docker", "rm", "--force", "--volumes", *(node.id for node in left)),
                timeout=engines.CHANGE_S,
            ).said
            left = self._ours()
        if left:
            names = " ".join(node.name for node in left)
            raise PermanentError(
                f"of kind cluster '{self.name}' there is still {names} ({said})",
                fix=f"remove it yourself: docker rm --force --volumes {names}",
            )
        self.kubeconfig.unlink(missing_ok=True)


_CURRENT: Final = re.compile(r"^current-context:.*$", re.MULTILINE)


def _current_context(path: Path) -> str:
    """Return the current context of a kubeconfig as it is written there; empty if it has none."""
    with suppress(OSError):
        if (found := _CURRENT.search(path.read_text(encoding="utf-8"))) is not None:
            return found[0].partition(":")[2].strip().strip("\"'")
    return ""


def essence(said: Sequence[str]) -> tuple[str, list[str]]:
    """Return the error in the output of ``kind create cluster``, and the end of what led to it.

    kubeadm writes hundreds of lines of what it looks at, and both write stack traces.
    """
    text = [_COMMAND.sub(r'\1 ..."', line.rstrip()) for line in said]
    at = next((n for n, line in enumerate(text) if line.startswith(_ERROR)), None)
    if at is None:
        return "no reason given", [line for line in text if line.strip()][-_TAIL:]
    lines = []
    for line in text[at + 1 :]:
        if _NOISE.match(line):
            continue
        told = line.removeprefix("Command Output: ").strip()
        if told and told not in lines:
            lines.append(told)
    return text[at].removeprefix(_ERROR).strip(), lines[-_TAIL:]


def _described(nodes: Sequence[KindNode]) -> str:
    workers = sum(node.role == "worker" for node in nodes)
    return "1 worker" if workers == 1 else f"{workers} workers"


_INOTIFY_FIX: Final = (
    f"sudo sysctl fs.inotify.max_user_watches={preflight.WATCHES} "
    f"fs.inotify.max_user_instances={preflight.INSTANCES}"
)
_FAILURES: Final = (
    (
        r"too many open files",
        "there are too few inotify watches or instances",
        _INOTIFY_FIX,
    ),
    (
        r"could not find a log line that matches.*multi-user",
        "systemd does not start in its nodes; most often inotify instances are too few",
        f"{_INOTIFY_FIX}; else the node image is damaged or for another processor",
    ),
    (
        r"port is already allocated|address already in use",
        "a port of this machine that it maps is taken",
        "see who has it: sudo ss -ltnp; end that, or map another port",
    ),
    (
        r"failed to pull image",
        "the node image cannot be pulled",
        "see that `docker pull` gets it; docs/air-gapped.md says what to do without a network",
    ),
    (
        r"no space left on device",
        "the disk of the Docker engine is full",
        "docker system df; docker image prune",
    ),
    (
        r"unable to apply caps|privileged mode is incompatible|privileged.* not allowed",
        "the Docker engine may not run privileged containers, as kind's nodes are",
        "use a machine or a virtual machine of your own, not a container or a sandbox",
    ),
    (
        r"rootless provider requires",
        "Docker runs rootless and may not limit resources",
        "use control groups of version 2 with systemd's Delegate=yes, or Docker as root",
    ),
)
"""Signs of what kind says when it fails, what they mean, and what to do."""
