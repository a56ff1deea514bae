"""The commands for before the start: ``check`` finds what is missing, ``render`` shows what would be made."""

import json
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlaneError

from tests.integration.messages import build_of, example
from tests.integration.namespace import Namespace
from tests.integration.service import REGISTRY, run

pytestmark = pytest.mark.integration

SET = {"BUILDER_KANIKO__REGISTRY": REGISTRY}
SETTINGS_OK = (
    "ok   settings: all keys known, all values allowed\nok   custody: journal: 202 means that the event is on disk\n"
    'ok   engine: kaniko: Pod Security "baseline" admits its Pods'
)


async def check(namespace: Namespace, kubeconfig: Path, *flags: str) -> tuple[int, str, str]:
    """The command's exit code, its words and its complaints."""
    environ = SET | {"KUBECONFIG": str(kubeconfig)}
    done = await run("-m", "builder", "check", f"--namespace={namespace.name}", *flags, environ=environ)
    return done.returncode, done.stdout, done.stderr


async def test_check_of_a_good_set_up(namespace: Namespace, tmp_path: Path) -> None:
    """Exit code 0 for a service account with the three permissions that are used."""
    token = await namespace.service_account(may=("create", "get", "delete"))

    code, words, complaints = await check(namespace, namespace.kubeconfig(tmp_path / "builder", token=token))

    assert (code, complaints) == (0, "")
    assert words.splitlines() == [
        *SETTINGS_OK.splitlines(),
        f"ok   cluster: the API server answers; namespace {namespace.name}",
        "ok   permissions: all that are used",
        "ok   job: the API server would take one (dry run)",
    ]


async def test_check_names_each_missing_permission(namespace: Namespace, tmp_path: Path) -> None:
    """Exit code 1, and words that an admin can copy into a Role."""
    token = await namespace.service_account(may=("get",))

    code, words, complaints = await check(namespace, namespace.kubeconfig(tmp_path / "reader", token=token))

    assert (code, complaints) == (1, "")
    missing = [f"{verb} jobs.batch in namespace {namespace.name}" for verb in ("create", "delete")]
    assert words.splitlines()[-2] == f"FAIL permissions: missing: {', '.join(missing)}"


async def test_check_for_programs(namespace: Namespace, tmp_path: Path) -> None:
    """``-o json`` says the same as data."""
    token = await namespace.service_account()
    kubeconfig = namespace.kubeconfig(tmp_path / "nobody", token=token)

    code, document, _ = await check(namespace, kubeconfig, "-o=json")

    assert code == 1
    assert {finding["check"]: finding["ok"] for finding in json.loads(document)} == {
        "settings": True,
        "custody": True,
        "engine": True,
        "cluster": True,
        "permissions": False,
        "job": False,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"token": "not-a-token"}, "FAIL cluster: Unauthorized", id="unknown token"),
        pytest.param(
            {"server": "https://127.0.0.1:1"}, "FAIL cluster: 127.0.0.1:1: Connection refused", id="nobody there"
        ),
    ],
)
async def test_check_of_a_bad_connection(
    namespace: Namespace, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """Exit code 1, and one line that says what is wrong."""
    kubeconfig = namespace.kubeconfig(tmp_path / "kubeconfig", **changes)

    assert await check(namespace, kubeconfig) == (1, f"{SETTINGS_OK}\n{words}\n", "")


@pytest.mark.parametrize(
    ("document", "output"),
    [
        pytest.param(example(), "yaml", id="004's example"),
        pytest.param(build_of("parser1", runtime="go1.24"), "json", id="function"),
        pytest.param(build_of("p", environment={"YAML": "no: 'yes'\n- \t"}), "yaml", id="odd values"),
    ],
)
async def test_render_into_kubectl(namespace: Namespace, document: dict[str, Any], output: str) -> None:
    """``render | kubectl create --dry-run=server -f -``, as its help says."""
    flags = f"--namespace={namespace.name}", f"-o={output}"
    rendered = await run("-m", "builder", "render", *flags, environ=SET, stdin=json.dumps(document))

    accepted = await namespace.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered.stdout
    )

    assert (rendered.returncode, rendered.stderr) == (0, "")
    assert accepted.startswith("job.batch/kaniko-job-")
    assert accepted.endswith(" created (server dry run)\n")
    assert await namespace.jobs() == {}


async def test_the_strict_check_has_teeth(namespace: Namespace) -> None:
    """What all tests of manifests rest on: a field that Kubernetes does not know is refused, not dropped."""
    rendered = await run("-m", "builder", "render", "-o=json", environ=SET, stdin=json.dumps(example()))
    job = json.loads(rendered.stdout)
    job["spec"]["template"]["spec"]["automountServiceAccountTokens"] = False

    with pytest.raises(ControlPlaneError, match=r"unknown field \"spec.template.spec.automountServiceAccountTokens\""):
        await namespace.create_strictly(job)


async def test_render_of_a_bad_event() -> None:
    """Exit code 1, each wrong field by its name, and nothing on stdout that kubectl would take."""
    document = build_of("parser1", source_url="http://169.254.169.254/", build_timeout=0)

    rendered = await run("-m", "builder", "render", environ=SET, stdin=json.dumps(document))

    assert (rendered.returncode, rendered.stdout) == (1, "")
    assert rendered.stderr.splitlines()[0] == "render: the event would be rejected:"
    fields = sorted(line.split(":")[0].strip() for line in rendered.stderr.splitlines()[1:])
    assert fields == ["data.parameters.build_timeout", "data.parameters.source_url"]
