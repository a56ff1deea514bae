"""Our service installed for a node, as the README says: an overlay of one's own on `k8s/`, and Secrets beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.node import Account, Node
from node.places import GIT_NAME, REGISTRY_NAME

K8S = Path(__file__).parents[2] / "k8s"
REPOSITORY = "team/knative-lambdas"
"""Where images go, below the registry's name: `k8s/base` says ``team``, and the rest is the setting's default."""
REGISTRY_SECRET, GIT_SECRET, AUTHORITIES = "registry-credentials", "git-credentials", "authorities"


def write_overlay(folder: Path, namespace: str, *, components: list[str], settings: Mapping[str, str]) -> None:
    """A kustomization for `kubectl apply -k`; ``settings`` are environment variables."""
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


def belongings(node: Node, *, registry: Account | None = None, git: Account | None = None) -> list[dict[str, Any]]:
    """The objects that builds need beside: credentials, the right ones unless others are given, and the authority."""
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
