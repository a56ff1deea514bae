"""One real node for the whole suite, and on it a namespace for each test as `k8s/` ships it."""

import os
from collections.abc import Iterator

import pytest
from node.node import Node, missing


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A real cluster of one node. Skips where it cannot be had, but fails in CI, as ``control_plane`` does."""
    if (why := missing()) is not None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent(f"needs a real node: {why}")
    with Node() as node:
        yield node
