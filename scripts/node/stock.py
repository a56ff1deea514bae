"""The images that a node has from the start: its Pods' pause, a base for sources, BuildKit as its makers ship it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from node.configuration import PAUSE_IMAGE
from node.images import Entry, Image, folders, with_libraries

BUSYBOX = Path("/bin/busybox")
BASE_IMAGE = "docker.io/library/busybox:1"
BUILDKIT_IMAGE = "docker.io/moby/buildkit:v0.33.1-rootless"
"""The default of the setting ``buildkit.image``: the node must not have to fetch it."""
BUILDKIT_USER = 1000
_HOME = "/home/user"
_GIT = Path("/usr/lib/git-core")
_CAP_SETGID, _CAP_SETUID = 6, 7
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pause(programs: Path) -> Image:
    """What every Pod's sandbox runs."""
    return Image(PAUSE_IMAGE, [Entry("/pause", source=programs / "pause")], {"Entrypoint": ["/pause"]})


def busybox_system() -> list[Entry]:
    """A file system with a shell and its programs."""
    listed = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    links = [Entry(f"/bin/{name}", link="busybox") for name in listed if name != "busybox"]
    return [
        *folders("/bin", "/etc", "/root", "/var", "/usr", "/usr/bin", "/home"),
        *folders("/tmp", mode=0o1777),  # noqa: S108 -- in the image
        Entry("/bin/busybox", source=BUSYBOX),
        *links,
        Entry("/etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", mode=0o644),
        Entry("/etc/group", data=b"root:x:0:\nuser:x:1000:\n", mode=0o644),
    ]


def base() -> Image:
    """What sources are built on."""
    return Image(BASE_IMAGE, busybox_system(), {"Cmd": ["sh"], "Env": [_PATH]})


def buildkit(programs: Path) -> Image:
    """Of the same making as moby's `rootless` image, with Debian's runc, git and newuidmap."""
    own = [*folders(_HOME, f"{_HOME}/.local", "/run", "/run/user", owner=0)]
    own += folders(
        _HOME,
        f"{_HOME}/.local",
        f"{_HOME}/.local/tmp",
        f"{_HOME}/.local/share",
        f"{_HOME}/.local/share/buildkit",
        "/run/user/1000",
        owner=BUILDKIT_USER,
    )
    names = "buildkitd", "buildctl", "rootlesskit", "buildctl-daemonless.sh"
    shipped = [Entry(f"/usr/bin/{name}", source=programs / name) for name in names]
    subordinate = b"user:100000:65536\n"
    environ = [_PATH, f"HOME={_HOME}", "USER=user", "XDG_RUNTIME_DIR=/run/user/1000", f"TMPDIR={_HOME}/.local/tmp"]
    return Image(
        BUILDKIT_IMAGE,
        [
            *busybox_system(),
            *own,
            *shipped,
            *_git_and_runc(),
            *_map_programs(),
            *(Entry(f"/etc/{name}", data=subordinate, mode=0o644) for name in ("subuid", "subgid")),
        ],
        {
            "User": "1000:1000",
            "Env": [*environ, "BUILDKIT_HOST=unix:///run/user/1000/buildkit/buildkitd.sock"],
            "Entrypoint": ["rootlesskit", "buildkitd"],
            "Volumes": {f"{_HOME}/.local/share/buildkit": {}},
        },
    )


def _git_and_runc() -> list[Entry]:
    scripts = ("git-submodule", "git-sh-setup", "git-sh-i18n")
    return [
        *folders("/usr/share", "/usr/share/git-core", "/usr/share/git-core/templates"),
        *with_libraries(
            Path("/usr/bin/git"), Path("/usr/sbin/runc"), _GIT / "git-remote-https", _GIT / "git-sh-i18n--envsubst"
        ),
        *(Entry(str(_GIT / name), source=_GIT / name) for name in scripts),
        # Names are asked of the Pod's name server; glibc wants to be told.
        Entry("/etc/nsswitch.conf", data=b"hosts: files dns\n", mode=0o644),
    ]


def _map_programs() -> list[Entry]:
    """What gives a user namespace its ids."""
    places = (("/usr/bin/newuidmap", _CAP_SETUID), ("/usr/bin/newgidmap", _CAP_SETGID))
    entries = with_libraries(*(Path(path) for path, _ in places))
    capable = dict(places)
    return [Entry(one.path, source=one.source, capability=capable.get(one.path)) for one in entries]


def python() -> Image:
    """This very Python, for functions."""
    standard = Path(sysconfig.get_path("stdlib"))
    left_out = {"__pycache__", "test", "site-packages", "dist-packages", "idlelib", "ensurepip", "tkinter", "lib2to3"}
    files = [
        path
        for path in sorted(standard.rglob("*"))
        if path.is_file() and path.suffix != ".a" and not left_out.intersection(path.relative_to(standard).parts)
    ]
    interpreter = Path(sys.executable).resolve()
    loaded = with_libraries(interpreter, *(path for path in files if path.suffix == ".so"))
    return Image(
        "python",
        [
            *busybox_system(),
            *(Entry(str(path), source=path.resolve(), mode=0o644) for path in files if path.suffix != ".so"),
            *loaded,
            Entry("/bin/python", link=str(interpreter)),
        ],
        {"Cmd": ["python"], "Env": [_PATH]},
    )


def write_all(programs: Path, folder: Path) -> list[Path]:
    """The archives of all of them."""
    made = []
    for image in (pause(programs), base(), buildkit(programs)):
        archive = folder / f"{image.name.rpartition('/')[2].replace(':', '-')}.tar"
        image.write(archive)
        made.append(archive)
    return made
