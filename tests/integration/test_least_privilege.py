"""The Role that is deployed is enough, each verb of it is needed, and it reaches nowhere else."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from builder.models import Manifest
from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import ROOT, Service, Services, run, settings_tree

pytestmark = pytest.mark.integration

BASE = ROOT / "k8s" / "base"
BUILDER, BUILDS = "knative-lambda-builder", "knative-lambda-build"
VERBS = ("create", "get", "delete")


def deployed(file: str) -> list[Manifest]:
    """The objects in a file of the base."""
    return list(yaml.safe_load_all((BASE / file).read_text()))


ROLE, BINDING = deployed("role.yaml")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A namespace with the accounts and the Role of the base, and the way in as the service's account."""

    namespace: Namespace
    kubeconfig: Path

    async def grant(self, *verbs: str) -> None:
        """Have the Role allow these verbs and no other."""
        (rule,) = ROLE["rules"]
        role = ROLE | {"rules": [rule | {"verbs": list(verbs)}] if verbs else []}
        await self.namespace.kubectl("replace", "-f", "-", stdin=json.dumps(role))

    async def check(self) -> tuple[int, list[str]]:
        """What the command says in this set-up."""
        environ = {"KUBECONFIG": str(self.kubeconfig), "BUILDER_KANIKO__REGISTRY": "registry.example.com"}
        done = await run("-m", "builder", "check", f"--namespace={self.namespace.name}", environ=environ)
        return done.returncode, done.stdout.splitlines()

    async def rules(self, account: str, namespace: str) -> list[Any]:
        """All that an account may do in a namespace, by the API server's own account."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        path = "--raw=/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        who = f"--as=system:serviceaccount:{self.namespace.name}:{account}"
        groups = ("--as-group=system:serviceaccounts", "--as-group=system:authenticated")
        answer = await self.namespace.kubectl("create", path, "-f", "-", who, *groups, stdin=json.dumps(review))
        status = json.loads(answer)["status"]
        assert status["incomplete"] is False
        return sorted([*status["resourceRules"], *status["nonResourceRules"]], key=json.dumps)


@pytest.fixture
async def base(namespace: Namespace, tmp_path: Path) -> Deployed:
    """Made of the files as they are."""
    binding = BINDING | {
        "subjects": [one | {"namespace": namespace.name} for one in BINDING["subjects"]]
    }  # as kustomize
    await namespace.create(ROLE, binding, *deployed("service-accounts.yaml"))
    token = await namespace.kubectl("create", "token", BUILDER)
    return Deployed(namespace, namespace.kubeconfig(tmp_path / "builder", token=token.strip()))


async def readiness(service: Service) -> tuple[int, str]:
    """Status and detail of the probe."""
    answer = await service.http.get("/health/ready")
    return answer.status_code, "" if answer.status_code == httpx.codes.OK else answer.json()["detail"]


async def test_the_role_is_enough(base: Deployed, services: Services) -> None:
    """Creating, adopting, replacing what has finished and what still runs: with the account's own bound token."""
    service = await services.start(base.namespace, kubeconfig=base.kubeconfig, onActiveBuild="replace")
    assert await service.statuses(build_of("p", "e-1")) == [202]
    created = await service.ended("e-1")
    later = build_of("p", "e-2") | {"time": "2024-01-01T00:00:01Z"}
    assert await service.statuses(later) == [202]
    replaced = await service.ended("e-2")

    other = await services.start(base.namespace, kubeconfig=base.kubeconfig)
    assert await other.statuses(later) == [202]
    adopted = await other.ended("e-2")

    assert [one["status"] for one in (created, replaced, adopted)] == ["created", "created", "adopted"]
    assert await readiness(service) == (200, "")
    assert (await service.stats())["missing_permissions"] == []
    code, words = await base.check()
    assert (code, words[-2:]) == (
        0,
        ["ok   permissions: all that are used", "ok   job: the API server would take one (dry run)"],
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_is_needed(base: Deployed, services: Services, verb: str) -> None:
    """Without it, ``check`` and readiness name verb, resource and namespace; once granted, all is well by itself."""
    await base.grant(*(other for other in VERBS if other != verb))
    missing = f"{verb} jobs.batch in namespace {base.namespace.name}"

    service = await services.start(base.namespace, kubeconfig=base.kubeconfig)
    code, words = await base.check()

    assert await readiness(service) == (503, f"Kubernetes permissions: missing: {missing}")
    assert (await service.http.get("/health/live")).status_code == httpx.codes.OK
    assert [line["missing"] for line in service.logged("permissions_missing")] == [[missing]]
    assert (code, words[4]) == (1, f"FAIL permissions: missing: {missing}")
    await base.grant(*VERBS)
    await eventually(lambda: readiness(service), lambda ready: ready == (200, ""))
    await service.until_logged("permissions_complete")


async def test_the_role_reaches_nowhere_else(base: Deployed) -> None:
    """Beside what every account may do, the service may do what the Role says, here, and nothing elsewhere."""
    await base.namespace.kubectl("create", "serviceaccount", "nobody")
    here, elsewhere = base.namespace.name, "kube-system"
    nobodys = await base.rules("nobody", here)
    assert ROLE["rules"] == [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": list(VERBS)}]
    ours = await base.rules(BUILDER, here)
    assert [rule for rule in ours if rule not in nobodys] == ROLE["rules"]
    assert [rule for rule in nobodys if rule not in ours] == []
    assert await base.rules(BUILDER, elsewhere) == await base.rules("nobody", elsewhere) == nobodys


async def test_the_builds_own_account_may_do_nothing(base: Deployed, services: Services) -> None:
    """It has no rights, and its Pods get no token."""
    await base.namespace.kubectl("create", "serviceaccount", "nobody")
    nobodys = await base.rules("nobody", base.namespace.name)
    service = await services.start(base.namespace, kubeconfig=base.kubeconfig, kaniko={"serviceAccount": BUILDS})
    assert await service.statuses(build_of("p", "e-1")) == [202]
    (pod,) = await eventually(lambda: base.namespace.read("pods"), bool)

    assert await base.rules(BUILDS, base.namespace.name) == nobodys
    assert pod["spec"]["serviceAccountName"] == BUILDS
    assert "volumes" not in pod["spec"]
    assert "volumeMounts" not in pod["spec"]["containers"][0]


async def test_check_sees_a_namespace_that_is_not_there(base: Deployed) -> None:
    """An admin's kubeconfig may do everything, and yet no Job could be made."""
    environ = base.namespace.environ | {"BUILDER_KANIKO__REGISTRY": "registry.example.com"}
    done = await run("-m", "builder", "check", "--namespace=no-such", environ=environ)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, 'FAIL job: namespaces "no-such" not found')


async def test_check_tells_what_the_cluster_warns_of(base: Deployed, tmp_path: Path) -> None:
    """Rootless BuildKit where Pod Security wants more, as far as the namespace's labels have the API server say it."""
    await base.namespace.kubectl("label", "namespace", base.namespace.name, "pod-security.kubernetes.io/warn=baseline")
    config = tmp_path / "settings.json"
    config.write_text(json.dumps(settings_tree({"build": {"engine": "buildkit"}})))
    command = "-m", "builder", "check", f"--namespace={base.namespace.name}", f"--config={config}"
    done = await run(*command, environ={"KUBECONFIG": str(base.kubeconfig)})
    engine, job = done.stdout.splitlines()[2], done.stdout.splitlines()[-1]
    assert (
        engine
        == 'ok   engine: buildkit: only Pod Security "privileged" admits its Pods: "baseline" refuses them, for seccomp is off'
    )
    assert job.startswith(
        'ok   job: the API server would take one (dry run), and warns: would violate PodSecurity "baseline:latest": '
    )
    assert "seccompProfile" in job
