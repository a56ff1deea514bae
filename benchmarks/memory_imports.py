"""An interpreter that imports what the service imports from others, and nothing of the service."""

import importlib

from benchmarks.children import report, resident

LIBRARIES = (
    "aiohttp.web",
    "jiter",
    "kubernetes_asyncio.client",
    "kubernetes_asyncio.config",
    "prometheus_client",
    "pydantic",
    "sqlite3",
    "structlog",
    "uvloop",
    "yaml",
)

if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    report({"resident": resident()})
