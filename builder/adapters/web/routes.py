"""Which handler answers which request.

A table of a dozen rows. aiohttp's own router, with the application around it, takes as long for one request as reading
its event does.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeAlias

from aiohttp import web
from multidict import CIMultiDictProxy

from builder.adapters.web.answers import Answer

Handler: TypeAlias = Callable[..., Awaitable[Answer]]
"""Called with the request and the texts that stand in the places of the path's placeholders."""

Headers: TypeAlias = "dict[str, str] | CIMultiDictProxy[str]"
"""Of a request, asked for by their names in lower case. In a dict all names are so, and none stands twice."""

Deliver: TypeAlias = Callable[[Headers, bytes], Awaitable[Answer]]
"""Called with the headers and the body of a request of which everything is there."""

_PLACEHOLDERS = {"{id}": r"(\d{1,18})", "{correlation_id}": "(.+)"}


class Route(NamedTuple):
    """A method, a path that may have placeholders, and who answers. A route for GET answers HEAD as well.

    ``deliver`` is for the busiest routes: it answers requests that came in one piece.
    """

    method: str
    path: str
    handler: Handler
    deliver: Deliver | None = None


class Routes:
    """All routes of the service. Of several that fit, the first one answers; fixed paths come before others."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._patterns: dict[re.Pattern[str], dict[str, Handler]] = {}
        for method, path, handler, _ in routes:
            pattern = _pattern(path) if "{" in path else None
            methods = self._fixed.setdefault(path, {}) if pattern is None else self._patterns.setdefault(pattern, {})
            methods |= {method: handler, "HEAD": handler} if method == "GET" else {method: handler}

    def find(self, method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
        """The handler, and what stands in the placeholders' places.

        Raises:
            web.HTTPNotFound: nothing is there.
            web.HTTPMethodNotAllowed: it is there for other methods.
        """
        fixed = self._fixed.get(path)
        if fixed is not None and method in fixed:
            return fixed[method], ()
        allowed = set(fixed or ())
        for pattern, methods in self._patterns.items():
            match = pattern.fullmatch(path)
            if match is not None and method in methods:
                return methods[method], match.groups()
            if match is not None:
                allowed.update(methods)
        if allowed:
            raise web.HTTPMethodNotAllowed(method, sorted(allowed))
        raise web.HTTPNotFound


def _pattern(path: str) -> re.Pattern[str]:
    """The path as a regular expression with a group for each placeholder."""
    parts = re.split(r"(\{\w+\})", path)
    return re.compile("".join(_PLACEHOLDERS[part] if part.startswith("{") else re.escape(part) for part in parts))
