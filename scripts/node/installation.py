"""Our service installed for a node, as the README says: an overlay of one's own on `k8s/`, and Secrets beside it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from node.node import Account, Node
from node.places import GIT_NAME, REGISTRY_NAME

K8S = Path(__file__).parents[2] / "k8s"
REPOSITORY = "team/knative-lambdas"
"""Where images go, below the registry's name: `k8s/base` says ``team``, and the rest is the setting's default."""
REGISTRY_SECRET, GIT_SECRET, AUTHORITIES = "registry-credentials", "git-credentials", "authorities"


def install(
    node: Node,
    folder: Path,
    namespace: str,
    *,
    components: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    registry: Account | None = None,
    git: Account | None = None,
) -> dict[str, str]:
    """Apply everything but the service itself, whose process is to run beside the node, with this environment.

    It is what its Pod would have, with files in ``folder``: the ConfigMaps, and a token of its own account.
    ``settings`` are environment variables, too; the accounts are the right ones unless others are given.
    """
    _write_overlay(folder, namespace, components, settings or {})
    kubectl = node.plane.kubectl
    kubectl("apply", "-k", str(folder))
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": _belongings(node, registry, git)})
    kubectl("create", f"--namespace={namespace}", "-f", "-", input=objects)
    rendered = list(yaml.safe_load_all(kubectl("kustomize", str(folder))))
    maps = {one["metadata"]["name"]: one["data"] for one in rendered if one["kind"] == "ConfigMap"}
    (pod,) = [one["spec"]["template"]["spec"] for one in rendered if one["kind"] == "Deployment"]
    (file,) = [data["settings.yaml"] for data in maps.values() if "settings.yaml" in data]
    (folder / "settings.yaml").write_text(file)
    token = kubectl("create", "token", pod["serviceAccountName"], f"--namespace={namespace}", "--duration=24h")
    config = json.loads(node.plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.strip()}
    (folder / "kubeconfig").write_text(json.dumps(config))
    environ = {"KUBECONFIG": str(folder / "kubeconfig"), "BUILDER_CONFIG": str(folder / "settings.yaml")}
    for source in pod["containers"][0]["envFrom"]:
        environ |= maps[source["configMapRef"]["name"]]
    return environ


def _write_overlay(folder: Path, namespace: str, components: Sequence[str], settings: Mapping[str, str]) -> None:
    """A kustomization for `kubectl apply -k`."""
    wanted = {
        "BUILDER_KANIKO__REGISTRY_SECRET": REGISTRY_SECRET,
        "BUILDER_KANIKO__GIT_SECRET": GIT_SECRET,
        "BUILDER_BUILD__CA_CONFIG_MAP": AUTHORITIES,
        "BUILDER_BUILD__REGISTRY_MIRRORS": json.dumps({"docker.io": [f"{REGISTRY_NAME}/mirror"]}),
        "BUILDER_INTAKE__ALLOWED_SOURCE_HOSTS": json.dumps([GIT_NAME]),
    } | dict(settings)
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [_relative("base", folder)],
        "components": [_relative(f"components/{name}", folder) for name in components],
        "configMapGenerator": [
            {
                "name": "knative-lambda-builder-environment",
                "behavior": "merge",
                "literals": [f"{name}={value}" for name, value in wanted.items()],
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))


def _relative(name: str, folder: Path) -> str:
    """Kustomize takes no absolute path."""
    return os.path.relpath(K8S / name, folder)


def _belongings(node: Node, registry: Account | None, git: Account | None) -> list[dict[str, Any]]:
    """The objects that builds need beside: credentials and the authority."""
    pushes, fetches = registry or node.account, git or node.account
    auths = {"auths": {REGISTRY_NAME: {"username": pushes.name, "password": pushes.password}}}
    return [
        _secret(REGISTRY_SECRET, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": json.dumps(auths)}),
        _secret(GIT_SECRET, "Opaque", {"username": fetches.name, "password": fetches.password}),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": AUTHORITIES},
            "data": {"ca-certificates.crt": node.ca_file.read_text()},
        },
    ]


def _secret(name: str, kind: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": dict(data)}
