"""What kustomize makes of an overlay, and the questions that tests ask of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from control_plane import ControlPlane

from builder.models import Manifest
from tests.integration.service import ROOT

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())


@dataclass(frozen=True)
class Rendered:
    """The objects of one overlay."""

    name: str
    objects: list[Manifest]

    @classmethod
    def of(cls, name: str, plane: ControlPlane) -> Self:
        """Render an overlay as `kubectl apply -k` does."""
        return cls(name, list(yaml.safe_load_all(plane.kubectl("kustomize", str(K8S / "overlays" / name)))))

    def all(self, kind: str) -> list[Manifest]:
        """The objects of a kind; a Knative Service is a ``ksvc``."""
        return [one for one in self.objects if kind_of(one) == kind]

    def names(self, kind: str) -> set[tuple[str, str]]:
        """Namespace and name of each object of a kind."""
        return {(one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in self.all(kind)}

    @property
    def workload(self) -> Manifest:
        """The one object that runs the service."""
        (workload,) = [one for kind in ("Deployment", "StatefulSet", "ksvc") for one in self.all(kind)]
        return workload

    @property
    def pod(self) -> dict[str, Any]:
        """Its Pod's template."""
        template: dict[str, Any] = self.workload["spec"]["template"]
        return template

    @property
    def container(self) -> dict[str, Any]:
        """Its only container."""
        (container,) = self.pod["spec"]["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def namespace(self) -> str:
        """Where the service runs."""
        return str(self.workload["metadata"]["namespace"])

    def config_map(self, prefix: str) -> dict[str, str]:
        """The data of the ConfigMap whose generated name begins so."""
        (found,) = [one for one in self.all("ConfigMap") if one["metadata"]["name"].startswith(prefix)]
        data: dict[str, str] = found["data"]
        return data

    def configuration(self, folder: Path) -> dict[str, str]:
        """The environment of the container, with the settings' file in ``folder`` instead of the mounted one."""
        file = folder / "settings.yaml"
        file.write_text(self.config_map("knative-lambda-builder-settings")["settings.yaml"])
        environ = dict(self.config_map("knative-lambda-builder-environment"))
        for variable in self.container["env"]:
            environ[variable["name"]] = variable.get("value", "amqp://guest:guest@127.0.0.1:1/")
        assert environ["BUILDER_CONFIG"] == "/etc/knative-lambda-builder/settings.yaml"
        return environ | {"BUILDER_CONFIG": str(file)}


def kind_of(one: Manifest) -> str:
    """The kind, told apart from Kubernetes' own of the same name."""
    return "ksvc" if one["apiVersion"].startswith("serving.knative.dev/") else str(one["kind"])


def labels_of(one: Manifest) -> dict[str, str]:
    """An object's labels."""
    labels: dict[str, str] = one["metadata"].get("labels", {})
    return labels


def selected(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """True if a selector of labels finds these."""
    return selector.items() <= labels.items()


_POD = "spec.template.spec"
_SINK = "spec.delivery.deadLetterSink.ref.name"
_WORKLOAD = [
    ("ServiceAccount", f"{_POD}.serviceAccountName"),
    ("ConfigMap", f"{_POD}.volumes.*.configMap.name"),
    ("PersistentVolumeClaim", f"{_POD}.volumes.*.persistentVolumeClaim.claimName"),
    ("ConfigMap", f"{_POD}.containers.*.envFrom.*.configMapRef.name"),
    ("Secret", f"{_POD}.containers.*.env.*.valueFrom.secretKeyRef.name"),
]
_NEEDS = {
    "Deployment": _WORKLOAD,
    "StatefulSet": [*_WORKLOAD, ("Service", "spec.serviceName")],
    "ksvc": _WORKLOAD,
    "RoleBinding": [("Role", "roleRef.name"), ("ServiceAccount", "subjects.*.name")],
    "Broker": [("RabbitmqBrokerConfig", "spec.config.name"), ("Service", _SINK)],
    "RabbitmqSource": [("Broker", "spec.sink.ref.name")],
    "Trigger": [("Broker", "spec.broker"), ("Service", "spec.subscriber.ref.name"), ("Service", _SINK)],
    "ScaledObject": [
        ("Deployment", "spec.scaleTargetRef.name"),
        ("TriggerAuthentication", "spec.triggers.*.authenticationRef.name"),
    ],
    "TriggerAuthentication": [("Secret", "spec.secretTargetRef.*.name")],
}
"""Kind → what it names: the other's kind, and the place of the name."""


def references(one: Manifest) -> Iterator[tuple[str, str, str]]:
    """Kind, namespace and name of each object that this one needs."""
    namespace = one["metadata"].get("namespace", "")
    for kind, path in _NEEDS.get(kind_of(one), ()):
        for name in _at(one, path.split(".")):
            yield kind, namespace, name
    for cluster in _at(one, ["spec", "rabbitmqClusterReference"]):
        yield "RabbitmqCluster", cluster.get("namespace", namespace), cluster["name"]


def _at(value: Any, path: list[str]) -> Iterator[Any]:
    """What stands at a path; nothing where it ends before."""
    if not path:
        yield value
    elif path[0] == "*":
        for inner in value:
            yield from _at(inner, path[1:])
    elif path[0] in value:
        yield from _at(value[path[0]], path[1:])
