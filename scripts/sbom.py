"""What is in the container image, as a CycloneDX 1.6 document: `python scripts/sbom.py > sbom.cdx.json`.

Made of the lock alone, so the same lock gives the same document. The packages of the base image are not in it: their
distribution knows them.
"""

import json
import re
import sys
import tomllib
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "scripts" / "requirements-image.txt"
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]+?))? \\$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """One of the lock. ``marker`` says where alone it is needed, ``wanted_by`` who needs it."""

    name: str
    version: str
    marker: str | None
    hashes: int
    wanted_by: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its address in the words of https://github.com/package-url/purl-spec."""
        return f"pkg:pypi/{self.name}@{self.version}"


def packages(lock: str) -> Iterator[Package]:
    """Of a lock as `uv pip compile --generate-hashes` writes it."""
    for block in re.split(r"\n(?=[a-z0-9])", lock):
        if (pin := _PIN.search(block)) is None:
            continue
        via = re.findall(r"^    # +(?:via )?([\w.-]+)(?: \(pyproject\.toml[^)]*\))?$", block, re.MULTILINE)
        wanted_by = tuple(name for name in via if name != "via")
        yield Package(pin["name"], pin["version"], pin["marker"], block.count("--hash=sha256:"), wanted_by)


def document(lock: str, version: str) -> dict[str, Any]:
    """The bill of materials of the service in this version."""
    locked = list(packages(lock))
    ours = f"pkg:pypi/knative-lambda-builder@{version}"
    refs = {"knative-lambda-builder": ours} | {package.name: package.purl for package in locked}
    needs: dict[str, list[str]] = defaultdict(list)
    for package in locked:
        for name in package.wanted_by:
            needs[refs[name]].append(package.purl)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{ours}\n{lock}").urn,
        "version": 1,
        "metadata": {"component": _component("application", "knative-lambda-builder", version, ours)},
        "components": [
            _component("library", package.name, package.version, package.purl)
            | ({} if package.marker is None else {"properties": [{"name": "pip:marker", "value": package.marker}]})
            for package in locked
        ],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in refs.values()],
    }


def _component(kind: str, name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def our_version() -> str:
    """As hatch reads it."""
    place = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]["path"]
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / place).read_text(), re.MULTILINE)
    if found is None:
        message = f"{place} has no __version__"
        raise ValueError(message)
    return found[1]


if __name__ == "__main__":
    json.dump(document(LOCK.read_text(), our_version()), sys.stdout, indent=1)
    print()
