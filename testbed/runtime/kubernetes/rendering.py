"""From a plan to the objects of its testbed: the shipped manifests, with what is this one's own.

Pure: no API server is asked. Two renderings of the same input are equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from testbed import environment
from testbed.errors import Problem, UsageError
from testbed.runtime.base import CONTROLLER, TrainerCommand
from testbed.runtime.kubernetes.manifests import BASE, HDFS, MYSQL, TRAINER, load
from testbed.scenario.plan import PlanHead
from testbed.scenario.secrets import split_password
from testbed.version import __version__

if TYPE_CHECKING:
    from testbed.scenario.schema import Deployment

Document: TypeAlias = dict[str, Any]

NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
APPLICATION: Final = "edge-testbed"

OPTIONS_ANNOTATION: Final = "edge-testbed/options"
SCENARIO_ANNOTATION: Final = "edge-testbed/scenario"
STORE_ANNOTATION: Final = "edge-testbed/task-log"
ARTIFACTS_ANNOTATION: Final = "edge-testbed/artifacts"
AUTHORITY_ANNOTATION: Final = "edge-testbed/authority"
"""On pods: which authority their certificate is of. Certificates are read at the start."""
IMAGE_ANNOTATION: Final = "edge-testbed/image"
"""On pods: the id of their image, where it is known. An image that was built again keeps its name,
and only with this do pods change to it."""
CONFIGURATION_ANNOTATION: Final = "edge-testbed/configuration"
OWNED_ANNOTATION: Final = "edge-testbed/made-by"
"""On a namespace that the toolkit made, and so may remove."""

EDGE_NODE: Final = "edge-node"
TRAINER_JOB: Final = "trainer"
"""Name of the trainer's Job, of its volume, and of the component that all its objects are."""
RESULTS: Final = "trainer-results"
"""Name of what hands out the results in the trainer's volume, while they are fetched."""
RESULTS_PORT: Final = 7450
NODE_PORT: Final = 7441
HTTP_PORT: Final = 7444
CONTROLLER_PORT: Final = 7440
MYSQL_PORT: Final = 3306
NAMENODE_PORT: Final = 9870
DATANODE_PORT: Final = 9864

IN_CLUSTER_STORE: Final = "mysql+pymysql://edge@mysql/testbed"
IN_CLUSTER_ARTIFACTS: Final = "webhdfs://edge@namenode:9870/edge-testbed"
NO_ARTIFACTS: Final = "/var/lib/edge-testbed/artifacts"
"""Without HDFS: nodes find no store there, and run the policy that ships."""

STATE: Final = "/var/lib/edge-testbed"
"""Where the trainer's volume is mounted."""

PASSWORD_FILE: Final = "/run/secrets/edge-testbed/mysql-password"

LARGEST_SCENARIO_BYTES: Final = 900_000
"""An object of the API may have about a mebibyte."""

LARGEST_SECRET_BYTES: Final = 1_000_000

_MIB: Final = 1 << 20
_OURS: Final = ("edgenode", CONTROLLER, TRAINER_JOB, "hdfs")


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Settings of a deployment on a cluster; stored with it, so that ``scale`` keeps them.

    ``image_registry`` is a host and path before the names of images (``registry.local/edge``);
    ``image_tag`` theirs, the version if empty. ``mysql_image`` replaces the public one.
    ``node_selector`` says where the edge nodes go; ``spread`` that they are spread evenly or not
    started. ``cpu_limits`` adds the limits some quotas demand. ``pull`` is the pull policy.
    """

    image_registry: str = ""
    image_tag: str = ""
    mysql_image: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    spread: bool = False
    without_hdfs: bool = False
    cpu_limits: bool = False
    storage_class: str = ""
    pull: str = ""
    pull_secret: str = ""

    def to_json(self) -> str:
        """Return one line of JSON; ``from_json`` gives equal options back."""
        default = ClusterOptions()
        chosen = {k: v for k, v in asdict(self).items() if v != getattr(default, k)}
        return json.dumps(chosen, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ClusterOptions:
        """Return the options of ``to_json``; ignores what this version does not know."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})

    @classmethod
    def of(cls, section: Deployment | None) -> ClusterOptions | None:
        """Return what the section of a scenario says of a cluster; None if it says nothing."""
        if section is None or section.model_fields_set <= {"kind"}:
            return None
        return cls(
            image_registry=section.images.registry,
            image_tag=section.images.tag,
            mysql_image=section.images.mysql,
            node_selector=dict(section.node_selector),
            spread=section.spread,
            without_hdfs=not section.hdfs,
            cpu_limits=section.cpu_limits,
            storage_class=section.storage_class,
            pull_secret=section.images.pull_secret,
        )

    def image(self, name: str) -> str:
        """Return the image of ``edgenode``, ``controller``, ``trainer`` or ``hdfs``."""
        prefix = self.image_registry.rstrip("/") or APPLICATION
        return f"{prefix}/{name}:{self.image_tag or __version__}"


@dataclass(frozen=True, slots=True)
class Services:
    """Task log and artifact store of a testbed: its own on the cluster, or others by URL.

    ``store`` and ``artifacts`` are URLs as pods see them, without passwords.
    """

    store: str = IN_CLUSTER_STORE
    artifacts: str = IN_CLUSTER_ARTIFACTS

    @classmethod
    def of(cls, store: str | None, artifacts: str | None, options: ClusterOptions) -> Services:
        """Return the services of the requested URLs; None: on the cluster.

        Raises: UsageError: a task log that pods cannot reach.
        """
        problems = []
        shown = None if store is None else split_password(store)[0]
        if shown is not None and not shown.startswith("mysql+pymysql://"):
            problems.append(
                Problem(
                    "task log",
                    repr(shown),
                    "pods cannot use a file; leave it out for a MySQL on the cluster, or name a "
                    "server: mysql+pymysql://USER@HOST/DATABASE",
                )
            )
        if artifacts is not None and "://" not in artifacts:
            problems.append(
                Problem(
                    "artifacts",
                    repr(artifacts),
                    "pods cannot use a folder; leave it out for an HDFS on the cluster, or name "
                    "one: webhdfs://USER@HOST:9870/PATH",
                )
            )
        if problems:
            raise UsageError("the pods of a cluster cannot reach these", problems)
        own = NO_ARTIFACTS if options.without_hdfs else IN_CLUSTER_ARTIFACTS
        return cls(shown or IN_CLUSTER_STORE, artifacts or own)

    @property
    def own_mysql(self) -> bool:
        """Whether the task log's server is part of the testbed."""
        return self.store == IN_CLUSTER_STORE

    @property
    def own_hdfs(self) -> bool:
        """Whether the artifact store is part of the testbed."""
        return self.artifacts == IN_CLUSTER_ARTIFACTS


def namespace_of(name: str) -> str:
    """Return the namespace of the testbed ``name``."""
    return f"testbed-{name}"


def render(
    plan: PlanHead,
    name: str,
    *,
    namespace: str | None = None,
    scenario: str | None = None,
    credentials: Mapping[str, Mapping[str, str]] | None = None,
    authority: str = "",
    services: Services | None = None,
    options: ClusterOptions | None = None,
    replicas: int | None = None,
) -> list[Document]:
    """Return all objects of the testbed ``name``, in an order in which they can be applied.

    ``scenario`` is the text of the scenario file; without it pods get the plan itself.
    ``credentials`` become Secrets, by name (``certificates.py``); without them there is none.
    ``authority`` tells whose certificates they hold: others are for other pods.
    ``replicas`` is the number of nodes to have now, the plan's if None.

    Raises: UsageError: the scenario is larger than an object of the API may be.
    """
    options = options or ClusterOptions()
    services = services or Services.of(None, None, options)
    namespace = namespace or namespace_of(name)
    components = [BASE]
    if services.own_mysql:
        components.append(MYSQL)
    if services.own_hdfs:
        components.append(HDFS)
    documents = load(components)
    configuration = _configuration(plan, scenario)
    documents.append(_object("ConfigMap", "scenario", data=configuration))
    documents += render_secrets(credentials or {})
    digest = hashlib.sha256(
        json.dumps([configuration, asdict(services)], sort_keys=True).encode()
    ).hexdigest()[:16]
    for document in documents:
        _place(document, name, namespace)
        if document["kind"] == "ConfigMap":
            document["metadata"]["annotations"] = {
                OPTIONS_ANNOTATION: options.to_json(),
                SCENARIO_ANNOTATION: plan.name,
                STORE_ANNOTATION: services.store,
                ARTIFACTS_ANNOTATION: services.artifacts,
            }
        if document["kind"] == "StatefulSet":
            _set_workload(document, plan, options, services, name, digest, scenario, replicas)
            if authority and document["metadata"]["name"] in (EDGE_NODE, CONTROLLER):
                template = document["spec"]["template"]["metadata"]
                template.setdefault("annotations", {})[AUTHORITY_ANNOTATION] = authority
        if document["kind"] == "NetworkPolicy":
            _let_out(document, services)
    return sorted(documents, key=_order)


def render_secrets(credentials: Mapping[str, Mapping[str, str]]) -> list[Document]:
    """Return the Secrets with these contents, by name, without a namespace."""
    found = []
    for name, content in credentials.items():
        data = {k: base64.b64encode(v.encode()).decode() for k, v in content.items()}
        size = sum(len(value) for value in content.values())
        if size > LARGEST_SECRET_BYTES:
            raise UsageError(
                "the network is too large for a cluster",
                [
                    Problem(
                        "nodes.count",
                        f"certificates of {size / 1e3:.0f} KB",
                        f"{LARGEST_SECRET_BYTES / 1e3:.0f} KB fit into a Secret: about 500 nodes",
                    )
                ],
            )
        found.append(_object("Secret", name, type="Opaque", data=data))
    return found


def render_trainer(
    name: str,
    arguments: Sequence[str],
    *,
    namespace: str | None = None,
    services: Services | None = None,
    options: ClusterOptions | None = None,
    command: TrainerCommand = "o2o",
) -> list[Document]:
    """Return the objects of a Job that runs ``testbed COMMAND ARGUMENTS`` on testbed ``name``."""
    options = options or ClusterOptions()
    services = services or Services.of(None, None, options)
    documents = load([TRAINER])
    for document in documents:
        _place(document, name, namespace or namespace_of(name))
        if document["kind"] == "PersistentVolumeClaim" and options.storage_class:
            document["spec"]["storageClassName"] = options.storage_class
        if document["kind"] == "NetworkPolicy":
            _let_out(document, services)
        if document["kind"] == "Job":
            pod = document["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            _set_images(pod, container, options)
            _set_services(container, services, environment.STORAGE, environment.ARTIFACTS)
            if command == "learn":
                container["args"] = ["learn", "--out", f"{STATE}/learn", "--json"]
            container["args"] += arguments
            _limit(container, options)
    return sorted(documents, key=_order)


def render_results(
    name: str, *, namespace: str | None = None, options: ClusterOptions | None = None
) -> Document:
    """Return the StatefulSet whose pod hands out the results in the trainer's volume.

    It listens on the loopback interface of its pod, where only port-forwards arrive.
    """
    (job,) = (
        each
        for each in render_trainer(name, (), namespace=namespace, options=options)
        if each["kind"] == "Job"
    )
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for key in ("args", "env"):
        container.pop(key)
    container["command"] = [
        *("python", "-m", "trainer.results_server", f"{STATE}/o2o", f"{STATE}/learn"),
        *("--port", str(RESULTS_PORT)),
    ]
    container["resources"] = {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": "512Mi"},
    }
    _limit(container, options or ClusterOptions())
    needed = ("state", "tmp")
    container["volumeMounts"] = [v for v in container["volumeMounts"] if v["name"] in needed]
    pod["volumes"] = [v for v in pod["volumes"] if v["name"] in needed]
    pod["restartPolicy"] = "Always"
    pod["terminationGracePeriodSeconds"] = 1
    labels = {**job["metadata"]["labels"], COMPONENT_LABEL: RESULTS}
    selected = {key: labels[key] for key in (NAME_LABEL, INSTANCE_LABEL, COMPONENT_LABEL)}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": RESULTS, "namespace": job["metadata"]["namespace"], "labels": labels},
        "spec": {
            "serviceName": RESULTS,
            "replicas": 1,
            "selector": {"matchLabels": selected},
            "template": {"metadata": {"labels": selected}, "spec": pod},
        },
    }


def _object(kind: str, name: str, **content: Any) -> Document:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {
                NAME_LABEL: APPLICATION,
                "app.kubernetes.io/part-of": APPLICATION,
                COMPONENT_LABEL: "testbed",
            },
        },
        **content,
    }


def _configuration(plan: PlanHead, scenario: str | None) -> dict[str, str]:
    data = {"plan.json": plan.to_json()} if scenario is None else {"scenario.yaml": scenario}
    size = sum(len(text.encode()) for text in data.values())
    if size > LARGEST_SCENARIO_BYTES:
        raise UsageError(
            "the scenario is too large for a cluster",
            [
                Problem(
                    "scenario",
                    f"{size / 1e3:.0f} KB",
                    f"at most {LARGEST_SCENARIO_BYTES / 1e3:.0f} KB; give distributions instead of "
                    "a value for every link",
                )
            ],
        )
    return data


def _place(document: Document, name: str, namespace: str) -> None:
    metadata = document["metadata"]
    if document["kind"] == "Namespace":
        metadata["name"] = namespace
        metadata.pop("namespace", None)
    else:
        metadata["namespace"] = namespace
    labels = {**(metadata.get("labels") or {}), INSTANCE_LABEL: name, MANAGED_LABEL: APPLICATION}
    metadata["labels"] = labels
    template = document.get("spec", {}).get("template")
    if template is not None:
        template["metadata"]["labels"][INSTANCE_LABEL] = name
    for claim in document.get("spec", {}).get("volumeClaimTemplates", ()):
        claim["metadata"]["labels"][INSTANCE_LABEL] = name


def _set_workload(
    document: Document,
    plan: PlanHead,
    options: ClusterOptions,
    services: Services,
    name: str,
    digest: str,
    scenario: str | None,
    replicas: int | None,
) -> None:
    component = document["metadata"]["name"]
    spec = document["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    _set_images(pod, container, options)
    if component == EDGE_NODE:
        spec["replicas"] = plan.size if replicas is None else replicas
        container["resources"] = node_resources(plan)
        if plan.fronted:
            # Of anybody who gets to the pod, whom the policies keep few.
            container["args"] += ["--http", f"0.0.0.0:{HTTP_PORT}"]
        if options.node_selector:
            pod["nodeSelector"] = dict(options.node_selector)
        if options.spread:
            for constraint in pod["topologySpreadConstraints"]:
                constraint["whenUnsatisfiable"] = "DoNotSchedule"
    if component == CONTROLLER:
        container["resources"] = controller_resources(plan)
        _set_services(
            container, services, environment.PROCESS_STORAGE, environment.PROCESS_ARTIFACTS
        )
        if scenario is None:
            place = container["args"].index("--scenario")
            container["args"][place : place + 2] = ["--plan", "/etc/edge-testbed/plan.json"]
        # Another scenario needs another controller, which configures the nodes.
        annotations = spec["template"]["metadata"].setdefault("annotations", {})
        annotations[CONFIGURATION_ANNOTATION] = digest
    _limit(container, options)
    for claim in spec.get("volumeClaimTemplates", ()):
        if options.storage_class:
            claim["spec"]["storageClassName"] = options.storage_class


@dataclass(frozen=True, slots=True)
class Requests:
    """What pods request of their machines, all together: processor time and memory.

    ``nodes`` of the ``pods`` are edge nodes. ``cpu_m`` is in thousandths of a processor.
    """

    nodes: int = 0
    pods: int = 0
    cpu_m: int = 0
    memory_bytes: int = 0


def requests_of(documents: Sequence[Document]) -> Requests:
    """Return what the pods of the StatefulSets among these objects request."""
    nodes = pods = cpu_m = memory = 0
    for document in documents:
        if document["kind"] != "StatefulSet":
            continue
        count = int(document["spec"].get("replicas", 1))
        pods += count
        nodes += count if document["metadata"]["name"] == EDGE_NODE else 0
        for container in document["spec"]["template"]["spec"]["containers"]:
            asked = container["resources"]["requests"]
            cpu_m += count * int(asked["cpu"].removesuffix("m"))
            memory += count * _bytes(asked["memory"])
    return Requests(nodes, pods, cpu_m, memory)


def _bytes(quantity: str) -> int:
    units = {"Ki": 1 << 10, "Mi": _MIB, "Gi": 1 << 30}
    return int(quantity[:-2]) * units[quantity[-2:]]


def pods_of(documents: Sequence[Document]) -> list[Document]:
    """Return what the pods of the StatefulSets among these objects are."""
    return [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "StatefulSet"]


def note_images(documents: Sequence[Document], image_ids: Mapping[str, str]) -> None:
    """Note on the pods of StatefulSets the ids of their images, by name, as far as known."""
    for document in documents:
        if document["kind"] != "StatefulSet":
            continue
        template = document["spec"]["template"]
        (container,) = template["spec"]["containers"]
        if identity := image_ids.get(container["image"]):
            template["metadata"].setdefault("annotations", {})[IMAGE_ANNOTATION] = identity


def _set_images(pod: Document, container: Document, options: ClusterOptions) -> None:
    container["image"] = _image(container["image"], options)
    if options.pull:
        container["imagePullPolicy"] = options.pull
    if options.pull_secret:
        pod["imagePullSecrets"] = [{"name": options.pull_secret}]


def _set_services(container: Document, services: Services, store: str, artifacts: str) -> None:
    url = services.store
    with_file = f"{url}{'&' if '?' in url else '?'}password_file={PASSWORD_FILE}"
    _set_environment(container, store, with_file)
    _set_environment(container, artifacts, services.artifacts)


def _limit(container: Document, options: ClusterOptions) -> None:
    if options.cpu_limits:
        cpu = container["resources"]["requests"]["cpu"]
        container["resources"]["limits"]["cpu"] = f"{10 * int(cpu.removesuffix('m'))}m"


def _image(image: str, options: ClusterOptions) -> str:
    repository = image.rpartition(":")[0]
    short = repository.rpartition("/")[2]
    if short in _OURS:
        return options.image(short)
    return options.mysql_image or image


def _set_environment(container: Document, name: str, value: str) -> None:
    for variable in container["env"]:
        if variable["name"] == name:
            variable["value"] = value
            return
    raise AssertionError(f"the manifest has no variable {name}")


def _let_out(document: Document, services: Services) -> None:
    """Allow pods to reach services outside the cluster."""
    component = document["metadata"]["name"]
    ports = []
    if component in (CONTROLLER, TRAINER_JOB) and not services.own_mysql:
        ports.append(_port(services.store, 3306))
    elsewhere = "://" in services.artifacts and not services.own_hdfs
    if elsewhere and component in (CONTROLLER, EDGE_NODE, TRAINER_JOB):
        # DataNodes, to which a NameNode sends its clients on, have ports of their own.
        ports += [_port(services.artifacts, 9870), DATANODE_PORT, 9865]
    if ports:
        rule = {"ports": [{"protocol": "TCP", "port": port} for port in sorted(set(ports))]}
        document["spec"].setdefault("egress", []).append(rule)


def _port(url: str, default: int) -> int:
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(",")[0]
    port = host.rpartition("]")[2].rpartition(":")[2]
    return int(port) if ":" in host and port.isdecimal() else default


_ORDER: Final = (
    "Namespace",
    "ServiceAccount",
    "NetworkPolicy",
    "ConfigMap",
    "Secret",
    "Service",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Job",
)


def _order(document: Document) -> tuple[int, str]:
    # Services first: a pod finds them under their names from its first moment.
    kind = document["kind"]
    name = document["metadata"]["name"]
    rank = _ORDER.index(kind)
    # What others wait for begins before them.
    first = {"mysql": "0", "namenode": "1", "datanode": "2", CONTROLLER: "3"}
    return rank, first.get(name, "9") + name


# --- how much of a machine a pod needs ----------------------------------------------------------


def node_resources(plan: PlanHead) -> Document:
    """Return requests and limits of an edge node's pod, from its scenario.

    Memory: 128 MiB, and half a MiB for the connections to each peer; the limit is twice that, and
    eight of the largest tasks on top. Processor: 40 m, and 6 m for every MB/s of data that arrive;
    a whole core for an application that computes. There is no limit on the processor: a node that
    is held back does not take the times it should (``ClusterOptions.cpu_limits`` adds one).
    The emulated capacity of a node has nothing to do with it: that is the model's.
    """
    demand = plan.demand
    request = 128 + _steps(0.5 * plan.size, 8)
    limit = _steps(2 * request + 8 * (demand.largest_bytes / _MIB), 16)
    if plan.application.name != "emulated":
        cpu = 1000
    else:
        cpu = _steps(40 + 6 * demand.bytes_per_second / 1e6, 10)
    return {
        "requests": {"cpu": f"{cpu}m", "memory": f"{request}Mi"},
        "limits": {"memory": f"{limit}Mi"},
    }


def controller_resources(plan: PlanHead) -> Document:
    """Return requests and limits of the controller's pod: 256 MiB plus 4 MiB per 10 nodes.

    Processor: 100 m, and 2 m for every node.
    """
    size = plan.size
    request = 256 + _steps(0.4 * size, 8)
    return {
        "requests": {"cpu": f"{100 + _steps(2.0 * size, 20)}m", "memory": f"{request}Mi"},
        "limits": {"memory": f"{4 * request}Mi"},
    }


def _steps(value: float, step: int) -> int:
    """Return ``value`` rounded down to a multiple of ``step``, so small changes restart no pod."""
    return step * math.floor(value / step)
