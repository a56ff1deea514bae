"""The bill of materials says what the lock says."""

import re
from pathlib import Path

import sbom

LOCK = (Path(__file__).parents[2] / "scripts" / "requirements-image.txt").read_text()


def test_every_locked_package_and_no_other() -> None:
    """Each once, with its version, and none without a hash."""
    locked = list(sbom.packages(LOCK))
    assert [f"{package.name}=={package.version}" for package in locked] == re.findall(
        r"^[\w.-]+==[^\s;]+", LOCK, re.MULTILINE
    )
    assert [package.name for package in locked if package.hashes == 0] == []


def test_who_needs_what() -> None:
    """Everything is there for something, down from the service itself; addresses are unique and known."""
    document = sbom.document(LOCK, "1.2.3")
    known = {component["bom-ref"] for component in document["components"]}
    assert len(known) == len(document["components"])
    needs = {one["ref"]: set(one["dependsOn"]) for one in document["dependencies"]}
    ours = document["metadata"]["component"]["bom-ref"]
    assert ours == "pkg:pypi/knative-lambda-builder@1.2.3"
    assert set(needs) == known | {ours}
    reached, ahead = set[str](), {ours}
    while ahead:
        reached |= ahead
        ahead = set().union(*(needs[one] for one in ahead)) - reached
    assert reached == known | {ours}


def test_the_same_lock_gives_the_same_document() -> None:
    assert sbom.document(LOCK, sbom.our_version()) == sbom.document(LOCK, sbom.our_version())
    assert sbom.document(LOCK, "1")["serialNumber"] != sbom.document(LOCK, "2")["serialNumber"]
