"""Small objects for the tests of the fake API server, and the client they use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.api_server import TOKEN, ApiServer

NAMESPACE: Final = "edge"
APPLY: Final = "application/apply-patch+yaml"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """The official client. ``Any``: what it takes besides its models, its types do not say."""

    raw: client.ApiClient

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.raw)

    @property
    def apps(self) -> Any:
        return client.AppsV1Api(self.raw)

    @property
    def batch(self) -> Any:
        return client.BatchV1Api(self.raw)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        **query: str,
    ) -> tuple[int, Object]:
        """Status and body of a raw request, whatever the status."""
        host: str = self.raw.configuration.host
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        headers["Authorization"] = f"Bearer {TOKEN}"
        text = "&".join(f"{name}={value}" for name, value in query.items())
        response = self.raw.call_api(
            method, f"{host}{path}{f'?{text}' if text else ''}", headers, body
        )
        return response.status, json.loads(response.read())

    def apply(
        self, path: str, value: Object, manager: str = "edge-testbed", **query: str
    ) -> tuple[int, Object]:
        return self.call("PATCH", path, value, APPLY, fieldManager=manager, **query)


def refused(call: pytest.ExceptionInfo[ApiException]) -> Object:
    """The Status of a refusal that the typed client raised."""
    body: Object = json.loads(call.value.body or "")
    assert body["kind"] == "Status"
    assert body["status"] == "Failure"
    assert body["code"] == call.value.status
    return body


def config_map(name: str = "settings", **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": name}},
        "data": data,
    }


def pod_template(labels: dict[str, str], image: str = "registry.example.com/node:1") -> Object:
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


def pod(name: str = "single") -> Object:
    template = pod_template({"app": name})
    head = {"apiVersion": "v1", "kind": "Pod"}
    return head | {"metadata": template["metadata"] | {"name": name}, "spec": template["spec"]}


def stateful_set(name: str = "node", replicas: int = 3, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template({"app": name}),
        }
        | spec,
    }


def job(name: str = "train", **spec: Any) -> Object:
    template = pod_template({"app": name})
    template["spec"]["restartPolicy"] = "Never"
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    return head | {"spec": {"template": template} | spec}


def ready(server: ApiServer, name: str, namespace: str = NAMESPACE) -> bool:
    """Whether a pod is."""
    conditions = server.object("pods", namespace, name)["status"].get("conditions", [])
    return ("Ready", "True") in {(each["type"], each["status"]) for each in conditions}


def events_of(server: ApiServer, namespace: str, name: str = "") -> list[tuple[str, str]]:
    """Reason and message of the events of one object, or of all."""
    return [
        (event["reason"], event["message"])
        for event in server.objects("events", namespace)
        if not name or event["involvedObject"]["name"] == name
    ]
