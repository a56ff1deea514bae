"""The container image: built for real, and run as a cluster runs it: by some user, with a root that nobody can write."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.harness import eventually
from tests.integration.messages import build_of, structured
from tests.integration.service import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

TOOLS = ROOT / "scripts" / "setup-image-tools"
SOMEBODY = "12345:0"
"""A user that the image has never heard of, as OpenShift makes them."""
READ_ONLY = """
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs -o mode=1777 none "$0/tmp"
mount -t tmpfs -o mode=1777 none "$0/var/lib"
exec chroot --userspec="$1" "$0" env -i "${@:2}"
"""
"""Root folder, user, and then variables and command. The one program stays the process that was started."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, its root folder mounted."""

    root: Path
    config: dict[str, Any]

    def spawn(self, *command: str, **environ: str) -> "subprocess.Popen[str]":
        """Run a command in it, with its own environment and ``environ``."""
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        started = ["unshare", "--mount", "bash", "-euc", READ_ONLY, str(self.root), SOMEBODY, *variables, *command]
        return subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built from the Dockerfile, on a base of Debian packages."""
    base = Path(subprocess.run([TOOLS, "--print"], capture_output=True, text=True, check=True).stdout.strip())
    if os.geteuid() != 0 or shutil.which("buildah") is None or not base.is_file():
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent("needs root, buildah and a base image: scripts/setup-image-tools makes them on Debian")
    folder = tmp_path_factory.mktemp("image")
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    store = ["buildah", f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]

    def buildah(command: str, *args: str) -> str:
        signed = [f"--signature-policy={policy}"] if command in {"from", "commit", "bud"} else []
        environ = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run(
            [*store, command, *signed, *args], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout.strip()

    try:
        scratch = buildah("from", "scratch")
        buildah("add", "--quiet", scratch, str(base), "/")
        buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin", scratch)
        buildah("commit", "--quiet", scratch, "localhost/base:1")
        volumes = [f"--volume={source}:{target}:ro" for source, target in needed_by_pip(folder).items()]
        build = ["--quiet", "--format=docker", "--build-arg=BASE_IMAGE=localhost/base:1", "--build-arg=REVISION=test"]
        buildah("bud", *build, *volumes, "--tag=localhost/built:1", str(ROOT))
        config = json.loads(buildah("inspect", "--type=image", "localhost/built:1"))["Docker"]["config"]
        yield Image(Path(buildah("mount", buildah("from", "localhost/built:1"))), config)
    finally:
        subprocess.run([*store, "umount", "--all"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def needed_by_pip(folder: Path) -> dict[str, str]:
    """What this machine's pip needs to reach its packages, as files to mount: authorities, settings, folders of wheels."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(re.findall(r"^[^.]+\.\.?([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    (folder / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    places = ("/etc/ssl/certs/ca-certificates.crt", settings.get("cert", ""), *settings.get("find-links", "").split())
    there = {place: place for place in places if place.startswith("/") and Path(place).exists()}
    return there | {str(folder / "pip.conf"): "/etc/pip.conf"}


def test_what_a_runtime_is_told(image: Image) -> None:
    """Nobody's root, no shell for the health check, SIGTERM to drain, and who it is."""
    config = image.config
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", config["User"])
    assert (config["Entrypoint"], config["Cmd"]) == (["knative-lambda-builder"], ["serve"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "knative-lambda-builder"
    assert (labels["licenses"], labels["version"], labels["revision"]) == ("Apache-2.0", "0.1.0", "test")
    assert labels["description"]


def test_what_is_in_it(image: Image) -> None:
    """The locked packages and the service; no compiler, no pip, no cache of it, nobody's tests."""
    (packages,) = (image.root / "opt/builder/lib").glob("python3*/site-packages")
    locked = re.findall(
        r"^([a-z0-9-]+)==(\S+)(?: ; (.*?))? ", (ROOT / "scripts/requirements-image.txt").read_text(), re.MULTILINE
    )
    wanted = {f"{name.replace('-', '_')}-{version}" for name, version, condition in locked if not condition}
    there = {path.name.removesuffix(".dist-info").lower() for path in packages.glob("*.dist-info")}
    assert wanted == there
    assert (packages / "builder/runtimes/go/Dockerfile").is_file()
    for name in ("pip", "gcc", "cc"):
        assert not [path for path in image.root.glob(f"*/bin/{name}*") if path.name in {name, f"{name}3"}], name
        assert not (image.root / "opt/builder/bin" / name).exists()
    assert not list((image.root / "root").glob(".cache/*"))
    assert not [path for path in packages.rglob("tests") if path.is_dir()]
    size = sum(path.lstat().st_size for path in (image.root / "opt").rglob("*"))
    assert size < 150 * 2**20


async def test_it_serves_as_anybody_on_a_read_only_root(image: Image) -> None:
    """An event becomes a Job, the health check agrees, and SIGTERM drains."""
    port = str(free_port())
    service = image.spawn(*image.config["Entrypoint"], *image.config["Cmd"], PORT=port, BUILDER_CLUSTER="memory")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await eventually(lambda: ready(http), bool, within=60)
            headers, body = structured(build_of("p"))
            assert (await http.post("/", headers=headers, content=body)).status_code == httpx.codes.ACCEPTED
            await eventually(lambda: status_of(http, "p"), lambda status: status == "created")
        check = image.spawn(*image.config["Healthcheck"]["Test"][1:], PORT=port)
        said, _ = await asyncio.to_thread(check.communicate, None, 60)
        assert (check.returncode, said) == (0, "")
        service.send_signal(signal.SIGTERM)
        log, _ = await asyncio.to_thread(service.communicate, None, 60)
        assert service.returncode == 0, log
        assert '"event":"stopped"' in log
    finally:
        service.kill()
        service.wait()


async def test_without_a_volume_it_says_so(image: Image) -> None:
    """A place for the journal that cannot be written ends the start, with the setting's name."""
    service = image.spawn(
        "knative-lambda-builder", "serve", BUILDER_CLUSTER="memory", BUILDER_JOURNAL__PATH="/srv/journal.sqlite3"
    )
    words, _ = await asyncio.to_thread(service.communicate, None, 60)
    assert service.returncode == 1
    assert "journal.path: cannot write in /srv" in words


def free_port() -> int:
    """A port that nobody has at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def ready(http: httpx.AsyncClient) -> bool:
    """True once it answers so."""
    try:
        return (await http.get("/health/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def status_of(http: httpx.AsyncClient, correlation_id: str) -> str:
    """What became of an event."""
    return str((await http.get(f"/async-jobs/{correlation_id}")).json()["status"])
