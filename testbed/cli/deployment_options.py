"""Options of ``up`` that stand for keys of the section ``deployment`` of a scenario."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import typer

_CLUSTER: Final = "Kubernetes"


def _key(key: str) -> str:
    return f"Earlier name of --set deployment.{key}=VALUE."


DeploymentFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--deployment",
        metavar="FILE",
        help="YAML file with a section `deployment`, instead of the scenario's: images, machines, "
        "volumes, kind cluster. One value: --set deployment.KEY=VALUE.",
        rich_help_panel=_CLUSTER,
    ),
]
ImageRegistry: TypeAlias = Annotated[
    str,
    typer.Option(
        "--image-registry",
        metavar="HOST/PATH",
        help="Short for --set deployment.images.registry=HOST/PATH.",
        rich_help_panel=_CLUSTER,
    ),
]
Workers: TypeAlias = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=0,
        help="Short for --set deployment.kind.workers=N.",
        rich_help_panel=_CLUSTER,
    ),
]

NodesPerProcess: TypeAlias = Annotated[
    str,
    typer.Option(
        "--nodes-per-process",
        metavar="N|auto",
        help="Short for --set deployment.nodesPerProcess=N: nodes that share a process.",
    ),
]
Transport: TypeAlias = Annotated[
    str,
    typer.Option(
        "--transport",
        metavar="auto|trunk|grpc",
        help="Short for --set deployment.transport=NAME: carrier of messages between nodes.",
    ),
]

# Names of earlier versions, for one release.
ImageTag: TypeAlias = Annotated[
    str, typer.Option("--image-tag", hidden=True, help=_key("images.tag"))
]
MysqlImage: TypeAlias = Annotated[
    str, typer.Option("--mysql-image", hidden=True, help=_key("images.mysql"))
]
PullSecret: TypeAlias = Annotated[
    str, typer.Option("--image-pull-secret", hidden=True, help=_key("images.pullSecret"))
]
NodeSelector: TypeAlias = Annotated[
    list[str] | None, typer.Option("--node-selector", hidden=True, help=_key("nodeSelector"))
]
Spread: TypeAlias = Annotated[bool, typer.Option("--spread", hidden=True, help=_key("spread"))]
WithoutHdfs: TypeAlias = Annotated[
    bool, typer.Option("--without-hdfs", hidden=True, help=_key("hdfs"))
]
StorageClass: TypeAlias = Annotated[
    str, typer.Option("--storage-class", hidden=True, help=_key("storageClass"))
]
CpuLimits: TypeAlias = Annotated[
    bool, typer.Option("--cpu-limits", hidden=True, help=_key("cpuLimits"))
]
NodeImage: TypeAlias = Annotated[
    str, typer.Option("--node-image", hidden=True, help=_key("kind.nodeImage"))
]
Ports: TypeAlias = Annotated[
    list[str] | None, typer.Option("--map-port", hidden=True, help=_key("kind.ports"))
]
Mounts: TypeAlias = Annotated[
    list[str] | None, typer.Option("--mount", hidden=True, help=_key("kind.mounts"))
]

_KEYS: Final = {
    "--nodes-per-process": "nodesPerProcess",
    "--transport": "transport",
    "--image-registry": "images.registry",
    "--image-tag": "images.tag",
    "--mysql-image": "images.mysql",
    "--image-pull-secret": "images.pullSecret",
    "--node-selector": "nodeSelector",
    "--spread": "spread",
    "--without-hdfs": "hdfs",
    "--storage-class": "storageClass",
    "--cpu-limits": "cpuLimits",
    "--workers": "kind.workers",
    "--node-image": "kind.nodeImage",
    "--map-port": "kind.ports",
    "--mount": "kind.mounts",
}


class DeploymentChanges(NamedTuple):
    """``settings`` as of --set, and which setting of a runtime each option ``used``."""

    settings: tuple[str, ...]
    used: tuple[tuple[str, str], ...]


def as_settings(given: Mapping[str, Any]) -> DeploymentChanges:
    """Return what options of ``up`` mean for the section; what is empty or 0 was not given."""
    settings, options = [], []
    for option, value in given.items():
        if not value:
            continue
        if option == "--without-hdfs":
            value = False
        elif isinstance(value, dict):
            value = {key: str(each) for key, each in value.items()}
        elif option == "--nodes-per-process" and str(value).isdecimal():
            value = int(value)
        settings.append(f"deployment.{_KEYS[option]}={json.dumps(value)}")
        options.append((_setting(_KEYS[option]), option))
    return DeploymentChanges(tuple(settings), tuple(options))


def used(settings: Sequence[str]) -> list[tuple[str, str]]:
    """Return which settings of a runtime the values of --set are for, with the option to name."""
    keys = [setting.partition("=")[0].strip() for setting in settings]
    section = "deployment"
    return [
        (_setting(key.removeprefix(section).removeprefix(".")), f"--set {key}")
        for key in keys
        if key == section or key.startswith(f"{section}.")
    ]


def _setting(key: str) -> str:
    first = key.split(".")[0]
    return f"deployment.{first}" if first in _SETTINGS else "deployment"


_SETTINGS: Final = ("kind", "nodesPerProcess", "transport", "httpPort", "metricsPort")
"""Keys that only some runtimes use; the others are for all clusters."""
