import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.http.door import Door, serving


@pytest.fixture(autouse=True)
def _no_search_for_sniffio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Httpx' engine looks for this package in vain four times a request: a quarter of the time of these tests."""
    monkeypatch.setitem(sys.modules, "sniffio", None)


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    """A service with the default settings. Its workers rest, so that what is accepted can be looked at."""
    async with serving() as door:
        yield door
