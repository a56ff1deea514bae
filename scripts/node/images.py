"""Container images made of files of this machine, without any builder: archives as `docker save` writes them."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: a copy of ``source``, of some bytes, a symbolic link, or (with none of these) a folder."""

    path: str
    source: Path | None = None
    data: bytes | None = None
    link: str | None = None
    mode: int = 0o755
    owner: int = 0
    capability: int | None = None
    """A capability that the program has for whoever runs it, such as CAP_SETUID, 7."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one layer; ``config`` is its configuration in OCI's words."""

    name: str
    entries: list[Entry]
    config: Mapping[str, Any] = field(default_factory=dict)

    def parts(self) -> "Parts":
        """Its layer and its configuration, as registries keep them."""
        layer = _layer(self.entries)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        return Parts(layer, json.dumps(config).encode())

    def write(self, archive: Path) -> None:
        """As a whole or not at all."""
        parts = self.parts()
        config, layer = (hashlib.sha256(part).hexdigest() for part in (parts.config, parts.layer))
        manifest = [{"Config": f"{config}.json", "RepoTags": [self.name], "Layers": [f"{layer}.tar"]}]
        files = {
            f"{config}.json": parts.config,
            f"{layer}.tar": parts.layer,
            "manifest.json": json.dumps(manifest).encode(),
        }
        unfinished = archive.with_suffix(".part")
        with tarfile.open(unfinished, "w") as tar:
            for path, data in files.items():
                _add(tar, tarfile.TarInfo(path), data)
        unfinished.rename(archive)


class Parts(NamedTuple):
    """The two blobs of an image."""

    layer: bytes
    config: bytes


def with_libraries(*programs: Path) -> list[Entry]:
    """The programs at the places where they are, and every library that they load."""
    wanted = {program: program.resolve() for program in programs}
    for program in programs:
        shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        paths = [word for line in shown.splitlines() for word in line.split() if word.startswith("/")]
        wanted |= {Path(path): Path(path).resolve() for path in paths}
    return [Entry(str(place), source=file) for place, file in wanted.items()]


def folders(*paths: str, mode: int = 0o755, owner: int = 0) -> list[Entry]:
    """Folders."""
    return [Entry(path, mode=mode, owner=owner) for path in paths]


def _layer(entries: Iterable[Entry]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            header = tarfile.TarInfo(entry.path.lstrip("/"))
            header.mode, header.uid, header.gid = entry.mode, entry.owner, entry.owner
            if entry.link is not None:
                header.type, header.linkname = tarfile.SYMTYPE, entry.link
                tar.addfile(header)
            elif entry.source is None and entry.data is None:
                header.type = tarfile.DIRTYPE
                tar.addfile(header)
            else:
                if entry.capability is not None:
                    header.pax_headers = {"SCHILY.xattr.security.capability": _capability(entry.capability)}
                _add(tar, header, entry.source.read_bytes() if entry.source is not None else entry.data or b"")
    return raw.getvalue()


def _capability(number: int) -> str:
    """The kernel's vfs_cap_data, version 2, permitted and effective, in the spelling in which tarfile keeps bytes."""
    version_and_effective = 0x0200_0001
    words = (version_and_effective, 1 << number, 0, 0, 0)
    return b"".join(word.to_bytes(4, "little") for word in words).decode("utf-8", "surrogateescape")


def _add(tar: tarfile.TarFile, header: tarfile.TarInfo, data: bytes) -> None:
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
