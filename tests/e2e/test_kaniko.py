"""Kaniko's Jobs as the kubelet runs them, by a strict stand-in: flags, mounts, environment, user and capabilities."""

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from node import stock
from node.node import Account, Node
from node.places import REGISTRY_NAME

from builder.models import Manifest
from tests.contract.harness import eventually
from tests.e2e.installation import LONG, Installation, Installations
from tests.e2e.sources import EXAMPLES, Sources
from tests.e2e.stand_in import import_stand_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def stand_in(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On the node."""
    import_stand_in(node, tmp_path_factory.mktemp("kaniko"))


async def test_every_flag_that_we_use(installations: Installations, node: Node, tmp_path: Path) -> None:
    """All settings that add a flag, a mount or a variable, and a user's words with everything that needs escaping."""
    installed = await installations.make(
        settings={
            "BUILDER_KANIKO__CACHE_REPOSITORY": f"{REGISTRY_NAME}/team/layers",
            "BUILDER_KANIKO__INSECURE_REGISTRIES": json.dumps(["plain.example.com:5000"]),
            "BUILDER_KANIKO__PUSH_RETRY": "2",
        }
    )
    sources = Sources(node, tmp_path, private=True)
    first = sources.commit(EXAMPLES)
    sources.commit(EXAMPLES, branch="v2")
    greeting = "--a 'b' $(GIT_PASSWORD) $HOME `c`, =dé"
    events = [
        sources.event(
            "root", sub_path="hello", environment={"GREETING": greeting}, build_type="container", runtime="go1.25"
        ),
        sources.event("branch", source_url=f"{sources.url}/hello", ref="v2", dockerfile="Dockerfile"),
        sources.event("commit", ref=first, sub_path="hello"),
    ]
    builds = await asyncio.gather(*map(installed.built, events))
    assert (await installed.answer_of(builds[0].image)) == {"greeting": greeting, "runtime": "go1.25"}


async def test_a_mounted_dockerfile(installations: Installations, node: Node, tmp_path: Path) -> None:
    """A function's, from the ConfigMap that `k8s/` makes, on a private base."""
    node.registry.push(stock.python(), "base/python", "3.11")
    runtime = {"python3.11": {"language": "python", "base_image": f"{REGISTRY_NAME}/base/python:3.11"}}
    installed = await installations.make(settings={"BUILDER_BUILD__RUNTIMES": json.dumps(runtime)})
    sources = Sources(node, tmp_path)
    sources.commit(EXAMPLES / "function")
    build = await installed.built(sources.event("function", runtime="python3.11"))
    assert await installed.answer_of(build.image, "/orders/43") == {"path": "/orders/43"}


async def test_what_it_says_when_a_build_fails(installations: Installations, node: Node, tmp_path: Path) -> None:
    """``grep '^Error'`` of the log finds it, as README's Troubleshooting says."""
    installed = await installations.make(git=Account("stranger", "wrong"))
    sources = Sources(node, tmp_path, private=True)
    sources.commit(EXAMPLES / "hello")
    assert await installed.service.statuses(sources.event("git")) == [202]
    build = await installed.ended("git")
    assert (build.condition, build.terminated["exitCode"]) == (("Failed", "BackoffLimitExceeded"), 1)
    assert "Error: error resolving source context: authentication required" in build.log.splitlines()


Change = Callable[[dict[str, Any]], object]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


def flag(word: str) -> Change:
    return lambda pod: container(pod)["args"].append(word)


def security(**fields: Any) -> Change:
    return lambda pod: container(pod)["securityContext"].update(fields)


def mounted(path: str) -> Change:
    def change(pod: dict[str, Any]) -> None:
        pod.setdefault("volumes", []).append({"name": "more", "emptyDir": {}})
        container(pod).setdefault("volumeMounts", []).append({"name": "more", "mountPath": path})

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown-flag": (flag("--snapshot-modes=redo"), "unknown flag: --snapshot-modes"),
    "no-value": (flag("--insecure-registry"), "flag needs an argument"),
    "twice": (flag("--cache=false"), "given twice"),
    "argument-from-the-pod": (flag("--build-arg=HOME"), "would be the pod's own variable"),
    "malformed": (flag("--registry-map=docker.io"), "must be original=mirror"),
    "one-capability-more": (security(capabilities={"drop": ["ALL"], "add": ["CHOWN", "NET_RAW"]}), "CapEff is"),
    "escalation": (security(allowPrivilegeEscalation=True), "NoNewPrivs is 0"),
    "another-user": (security(runAsUser=1000), "must be root"),
    "read-only": (security(readOnlyRootFilesystem=True), "the root file system"),
    "no-seccomp": (lambda pod: pod.update(securityContext={"seccompProfile": {"type": "Unconfined"}}), "Seccomp is 0"),
    "a-token": (lambda pod: pod.update(automountServiceAccountToken=True), "/run/secrets/kubernetes.io/serviceaccount"),
    "a-mount": (mounted("/src"), "mounted at /src"),
}
"""What is changed in one of our own Pods, and what the stand-in must say then: otherwise it would prove nothing."""


async def test_the_stand_in_is_strict(installations: Installations, node: Node, tmp_path: Path) -> None:
    """Our own Job, with one thing in it that a real Kaniko, or a build, would stumble over."""
    installed = await installations.make(settings={"BUILDER_KANIKO__CACHE": "false"})
    await installed.namespace.kubectl(
        "label", "namespace", installed.namespace.name, "pod-security.kubernetes.io/enforce-", "--overwrite"
    )
    sources = Sources(node, tmp_path)
    sources.commit(EXAMPLES / "hello")
    build = await installed.built(sources.event("strict"))
    pods = {name: changed(build.job, name, change) for name, (change, _) in REFUSED.items()}
    await installed.namespace.create(*pods.values())
    said = await asyncio.gather(*(last_words(installed, name) for name in pods))
    wanted = {name: words for name, (_, words) in REFUSED.items()}
    assert {name: words for (name, words), log in zip(wanted.items(), said, strict=True) if words not in log} == {}


def changed(job: Manifest, name: str, change: Change) -> Manifest:
    """The Job's Pod on its own, with one change, and small enough for many of them."""
    spec = deepcopy(job["spec"]["template"]["spec"])
    container(spec)["resources"] = {}
    change(spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def last_words(installed: Installation, name: str) -> str:
    """The log of a Pod that has failed."""

    async def phase() -> str:
        return await installed.namespace.kubectl("get", "pod", name, "-o=jsonpath={.status.phase}")

    assert await eventually(phase, lambda seen: seen in {"Failed", "Succeeded"}, LONG) == "Failed", name
    return await installed.namespace.kubectl("logs", name)
