"""``docker`` and ``kind``, as far as the toolkit uses them, over a folder of files.

Run as ``programs.py docker ARGUMENTS`` or ``programs.py kind ARGUMENTS``. Options, output, exit
codes and what is said on stderr are those of Docker 28 and kind 0.33. The folder, named by the
variable ``FAKE_ENGINE``, holds containers (one file each), what is in their file systems, the
images of the engine, and what is to go wrong (``behaviour.json``).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(os.environ["FAKE_ENGINE"])
SOCKET = "unix:///var/run/docker.sock"
CLUSTER = "io.x-k8s.kind.cluster"
ROLE = "io.x-k8s.kind.role"
DOWN = f"Cannot connect to the Docker daemon at {SOCKET}. Is the docker daemon running?"
DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at "
    f'{SOCKET}: Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/info": dial unix '
    "/var/run/docker.sock: connect: permission denied"
)


def behaviour(key: str, otherwise: Any = None) -> Any:
    return json.loads((HERE / "behaviour.json").read_text()).get(key, otherwise)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fail(text: str, code: int = 1) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
    sys.exit(code)


# --- the engine ------------------------------------------------------------------------------


def containers() -> list[dict[str, Any]]:
    found = []
    for path in sorted((HERE / "containers").glob("*.json")):
        try:
            found.append(json.loads(path.read_text()))
        except FileNotFoundError:
            continue
    return found


def container(name: str) -> dict[str, Any]:
    for each in containers():
        if name in (each["Id"], each["Name"].removeprefix("/")):
            return each
    fail(f"Error response from daemon: No such container: {name}")


def save(each: dict[str, Any]) -> None:
    path = HERE / "containers" / f"{each['Id']}.json"
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(each))
    temporary.replace(path)


def running(name: str) -> dict[str, Any]:
    each = container(name)
    if each["State"]["Status"] != "running":
        fail(f"Error response from daemon: Container {each['Id']} is not running")
    return each


def inside(each: dict[str, Any], path: str) -> Path:
    return HERE / "disks" / str(each["Id"]) / path.lstrip("/")


def images() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "images.json").read_text())
    return found


def option(arguments: list[str], name: str, otherwise: str = "") -> str:
    """Take an option with its value out of the arguments."""
    if name in arguments:
        at = arguments.index(name)
        value = arguments[at + 1]
        del arguments[at : at + 2]
        return value
    return otherwise


def docker(arguments: list[str]) -> None:
    state = behaviour("engine", "up")
    if state == "hangs":
        signal.pause()
    if arguments[0] == "info":
        info(state)
        return
    if state != "up":
        fail(DOWN if state == "down" else DENIED)
    match arguments[0], arguments[1]:
        case "ps", _:
            label = option(arguments, "--filter").removeprefix("label=")
            key, _, value = label.partition("=")
            for each in containers():
                if each["Config"]["Labels"].get(key) == value:
                    say(each["Id"])
        case "inspect", "--type=container":
            say(json.dumps([container(name) for name in arguments[2:]]))
        case "image", "inspect":
            name = arguments[-1]
            if name not in images():
                say("")
                fail(f"Error response from daemon: no such image: {name}: No such image: {name}")
            say(images()[name]["id"])
        case "image", "ls":
            for name in images():
                if name.rpartition(":")[0] == arguments[-1]:
                    say(name)
        case "image", "save":
            if behaviour("save") == "old":
                fail("unknown flag: --platform\n\nUsage:  docker image save", 125)
            name = arguments[-1]
            Path(option(arguments, "--output")).write_text(
                json.dumps({"image": name, "platform": option(arguments, "--platform")})
            )
        case "pull", name:
            pull(name)
        case "exec", _:
            execute([each for each in arguments[1:] if each != "--interactive"])
        case "cp", source:
            name, _, path = source.partition(":")
            if not inside(container(name), path).is_file():
                fail(f"Error response from daemon: Could not find the file {path} in {name}")
            say("a tar stream")
        case (("start" | "unpause"), name):
            each = container(name)
            if behaviour("start") == "port":
                fail(
                    "Error response from daemon: driver failed programming external connectivity: "
                    "Bind for 127.0.0.1:8080 failed: port is already allocated"
                )
            each["State"]["Status"] = "running"
            save(each)
            # systemd starts containerd some seconds later.
            (HERE / "starting").write_text("2")
            say(name)
        case "rm", _:
            for name in arguments[3:]:
                if behaviour("rm") == "refuses":
                    fail(f"Error response from daemon: cannot remove container: {name}: busy")
                (HERE / "containers" / f"{container(name)['Id']}.json").unlink()
                say(name)
        case _:
            fail(f"docker: unknown command: docker {' '.join(arguments)}")


def info(state: str) -> None:
    said: dict[str, Any] = {
        "ServerVersion": "28.2.2",
        "Name": "elsewhere",
        "MemTotal": 16_000_000_000,
        "NCPU": 16,
        "CgroupVersion": "2",
        "Architecture": "x86_64",
        "DockerRootDir": "/var/lib/docker",
        **behaviour("info", {}),
    }
    if state != "up":
        say(json.dumps({"ServerVersion": "", "Name": "", "MemTotal": 0}))
        fail(DOWN if state == "down" else DENIED)
    say(json.dumps(said))


def pull(name: str) -> None:
    if behaviour("pull") != "works":
        fail(
            'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup '
            "registry-1.docker.io: no such host"
        )
    say("v1.37.0: Pulling from kindest/node")
    say("Status: Downloaded newer image for kindest/node")
    known = images()
    known[name] = {"id": digest(name)}
    (HERE / "images.json").write_text(json.dumps(known))


def execute(arguments: list[str]) -> None:
    each = running(arguments[0])
    match arguments[1:]:
        case ["test", "-f", path]:
            sys.exit(0 if inside(each, path).is_file() else 1)
        case ["touch", path]:
            write(each, path, "")
        case ["cat", path]:
            if not inside(each, path).is_file():
                fail(f"cat: {path}: No such file or directory")
            say(inside(each, path).read_text())
        case ["cp", "/dev/stdin", path]:
            write(each, path, sys.stdin.read())
        case ["crictl", "images", "--output", "json"]:
            starting = HERE / "starting"
            if left := int(starting.read_text()) if starting.exists() else 0:
                starting.write_text(str(left - 1))
                fail(
                    "validate service connection: CRI v1 image API is not implemented for endpoint "
                    '"unix:///run/containerd/containerd.sock": connection refused'
                )
            held = node_images(each)
            say(json.dumps({"images": [{"id": i, "repoTags": [t]} for t, i in held.items()]}))
        case other:
            fail(f"OCI runtime exec failed: exec failed: {other}: no such file", 126)


def write(each: dict[str, Any], path: str, text: str) -> None:
    target = inside(each, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def node_images(each: dict[str, Any]) -> dict[str, str]:
    path = inside(each, "images.json")
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# --- kind ------------------------------------------------------------------------------------


def log(text: str) -> None:
    """kind says what it does on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def kind(arguments: list[str]) -> None:
    if arguments[0] == "version":
        say(f"kind v{behaviour('kind', '0.33.0')} go1.26.8 linux/amd64")
        return
    log("using docker due to KIND_EXPERIMENTAL_PROVIDER")
    if behaviour("engine", "up") != "up":
        fail(
            'ERROR: failed to list nodes: command "docker ps -a" failed with error: exit status 1'
            f"\n\nCommand Output: {DOWN}"
        )
    name = option(arguments, "--name", "kind")
    match arguments[:2]:
        case ["create", "cluster"]:
            create(name, arguments)
        case ["delete", "cluster"]:
            delete(name, Path(option(arguments, "--kubeconfig")))
        case ["export", "kubeconfig"]:
            if not of_cluster(name):
                fail(
                    "ERROR: could not locate any control plane nodes for cluster named "
                    f"'{name}'. Use the --name option to select a different cluster"
                )
            kubeconfig(name, Path(option(arguments, "--kubeconfig")))
            log(f'Set kubectl context to "kind-{name}"')
        case ["load", "docker-image"]:
            load(name, arguments[2], option(arguments, "--nodes"), archive=False)
        case ["load", "image-archive"]:
            archive = json.loads(Path(arguments[2]).read_text())
            if not archive["platform"]:
                fail("ERROR: failed to load image: Command Output: ctr: content digest: not found")
            load(name, archive["image"], option(arguments, "--nodes"), archive=True)
        case _:
            fail(f'ERROR: unknown command "{arguments[0]}" for "kind"')


def of_cluster(name: str) -> list[dict[str, Any]]:
    return [each for each in containers() if each["Config"]["Labels"].get(CLUSTER) == name]


def create(name: str, arguments: list[str]) -> None:
    if of_cluster(name):
        fail(
            "ERROR: failed to create cluster: node(s) already exist for a cluster with the name "
            f'"{name}"'
        )
    retain = "--retain" in arguments
    text = Path(option(arguments, "--config")).read_text()
    path = Path(option(arguments, "--kubeconfig"))
    end = behaviour("create", "works")
    # The standard library reads no YAML; what is read is checked by a test with a real reader.
    nodes = text.split("\n- role: ")[1:]
    image = nodes[0].split("image: ")[1].split("\n")[0]
    log(f'Creating cluster "{name}" ...')
    log(f" • Ensuring node image ({image.partition('@')[0]}) 🖼  ...")
    if image not in images():
        log(f" ✗ Ensuring node image ({image}) 🖼")
        fail(f'ERROR: failed to create cluster: failed to pull image "{image}"')
    log(f" ✓ Ensuring node image ({image.partition('@')[0]}) 🖼")
    icons = "📦 " * len(nodes)
    log(f" • Preparing nodes {icons}  ...")
    if end == "hangs-early":
        signal.pause()
    for number, node in enumerate(nodes):
        role = node.split("\n")[0]
        suffix = role if number < 2 else f"{role}{number}"
        source = node.split("hostPath: ")[1].split("\n")[0]
        identity = hashlib.sha256(f"{name} {suffix} {os.getpid()}".encode()).hexdigest()
        save(
            {
                "Id": identity,
                "Name": f"/{name}-{suffix}",
                "Config": {"Labels": {CLUSTER: name, ROLE: role}, "Image": image},
                "State": {"Status": "running"},
                "HostConfig": {
                    "Binds": ["/lib/modules:/lib/modules:ro", f"{source}:/etc/edge-testbed:ro"]
                },
            }
        )
    if end in FAILURES:
        log(f" ✗ Preparing nodes {icons}")
        if not retain:
            delete(name, path)
        fail(f"ERROR: failed to create cluster: {FAILURES[end]}")
    log(f" ✓ Preparing nodes {icons}")
    log(" • Starting control-plane 🕹️  ...")
    if end == "hangs":
        signal.pause()
    log(" ✓ Starting control-plane 🕹️")
    log(" • Waiting ≤ 2m0s for control-plane = Ready ⏳  ...")
    log(" • Ready after 11s 💚")
    kubeconfig(name, path)
    log(f'Set kubectl context to "kind-{name}"')


RUN = 'command "docker run --name x --hostname x kindest/node" failed with error: exit status 125'
FAILURES = {
    "port": f"{RUN}\n\nCommand Output: docker: Error response from daemon: driver failed "
    "programming external connectivity on endpoint: Bind for 127.0.0.1:8080 failed: port is "
    "already allocated",
    "systemd": 'could not find a log line that matches "Reached target .*Multi-User System.*|'
    'detected cgroup v1"',
    "files": f"{RUN}\n\nCommand Output: failed to create fsnotify watcher: too many open files",
    "caps": f"{RUN}\n\nCommand Output: docker: Error response from daemon: failed to create shim "
    "task: OCI runtime create failed: unable to apply caps: operation not permitted",
    "disk": f"{RUN}\n\nCommand Output: write /var/lib/docker: no space left on device",
    "kubeadm": 'failed to init node with kubeadm: command "docker exec --privileged x kubeadm '
    'init --config=/kind/kubeadm.conf" failed with error: exit status 1\n\nCommand Output: '
    'I0617 10:24:05.123456     142 initconfiguration.go:261] loading "/kind/kubeadm.conf"\n'
    "[init] Using Kubernetes version: v1.37.0\n"
    + "".join(
        f"I0617 10:24:{n:02}.1     142 round_trippers.go:553] GET /healthz  in 0 milliseconds\n"
        for n in range(40)
    )
    + "[kubelet-check] The kubelet is not healthy after 4m0s\n"
    "error: failed while waiting for the kubelet to start: context deadline exceeded\n"
    "k8s.io/kubernetes/cmd/kubeadm/app/cmd/phases/workflow.(*Runner).Run.func1\n"
    "\tk8s.io/kubernetes/cmd/kubeadm/app/cmd/phases/workflow/runner.go:262\n"
    "main.main\n\tk8s.io/kubernetes/cmd/kubeadm/kubeadm.go:25\n"
    "runtime.goexit\n\truntime/asm_amd64.s:1693",
}


def kubeconfig(name: str, path: Path) -> None:
    """Add the cluster's entry; one line each is all that is needed where nobody connects."""
    real = HERE / "kubeconfig"
    if real.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(real.read_text())
        return
    lines = path.read_text().splitlines() if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [each for each in lines if not each.startswith("current-context:")]
    lines = [*dict.fromkeys([*lines, f"context: kind-{name}"]), f"current-context: kind-{name}"]
    path.write_text("\n".join(lines) + "\n")


def delete(name: str, path: Path) -> None:
    log(f'Deleting cluster "{name}" ...')
    if path.exists():
        lines = [each for each in path.read_text().splitlines() if f"kind-{name}" not in each]
        path.write_text("".join(f"{line}\n" for line in lines))
    there = of_cluster(name)
    if there and behaviour("rm") == "refuses":
        fail(f'ERROR: failed to delete cluster "{name}": failed to delete nodes: exit status 1')
    for each in there:
        (HERE / "containers" / f"{each['Id']}.json").unlink(missing_ok=True)
    if there:
        names = " ".join(f'"{each["Name"][1:]}"' for each in there)
        log(f"Deleted nodes: [{names}]")


def load(cluster: str, image: str, nodes: str, *, archive: bool) -> None:
    if image not in images():
        fail(f'ERROR: image: "{image}" not present locally')
    there = {each["Name"][1:]: each for each in of_cluster(cluster)}
    if not there:
        fail(f'ERROR: no nodes found for cluster "{cluster}"')
    if behaviour("load") == "full":
        fail("ERROR: failed to load image: Command Output: write: no space left on device")
    known = images()[image]
    if known.get("platforms") and not archive:
        fail(
            'ERROR: failed to load image: command "docker exec --privileged -i x ctr '
            '--namespace=k8s.io images import --all-platforms" failed with error: exit status 1'
            "\n\nCommand Output: ctr: content digest sha256:b1addbe7: not found"
        )
    for name in nodes.split(","):
        each = there[name]
        tag = f"docker.io/{image}" if "/" in image else f"docker.io/library/{image}"
        # A node calls it by another id if the engine keeps its images in containerd.
        held = {**node_images(each), tag: known.get("node_id", known["id"])}
        write(each, "images.json", json.dumps(held))
        log(
            f'Image: "{image}" with ID "{known["id"]}" not yet present on node "{name}", loading...'
        )


if __name__ == "__main__":
    with (HERE / "journal").open("a") as journal:
        journal.write(" ".join(sys.argv[1:]) + "\n")
    {"docker": docker, "kind": kind}[sys.argv[1]](sys.argv[2:])
