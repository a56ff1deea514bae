"""Dead letters over HTTP: reading is open inside the cluster, replaying and discarding is not."""

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web

from builder.adapters.web.answers import json_answer, problem
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.letter_document import document, page, read_query, report_document
from builder.models import DeadLetter
from builder.settings import Admin

_FORWARDED = ("forwarded", "via", "x-forwarded-", "x-real-ip", "x-envoy-")

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class DeadLetterRoutes:
    """``/async-jobs/dead-letters`` and below."""

    def __init__(self, office: DeadLetterOffice, admin: Admin) -> None:
        self._office = office
        self._admin = admin

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        path = "/async-jobs/dead-letters"
        return [
            web.get(path, self.find),
            web.get(path + r"/{id:\d{1,18}}", self.show),
            web.post(path + r"/{id:\d{1,18}}/replay", self._guarded(self.replay)),
            web.post(path + "/replay", self._guarded(self.replay_many)),
            web.delete(path + r"/{id:\d{1,18}}", self._guarded(self.discard)),
        ]

    async def find(self, request: web.Request) -> web.Response:
        """A page of letters, the newest first; ``next_before`` is what the page after it is asked for with."""
        wanted, limit = read_query(request.query)
        letters = await self._office.box.letters(wanted, limit)
        return json_answer({"count": await self._office.box.count(), **page(letters, limit)})

    async def show(self, request: web.Request) -> web.Response:
        """One letter, with its data where ``?body=true`` asks for it; the values of ``environment`` stay hidden."""
        letter = await self._letter(request)
        if letter is None:
            return _unknown(request)
        return json_answer(document(letter, with_data=request.query.get("body") == "true"))

    async def replay(self, request: web.Request) -> web.Response:
        """Send one again."""
        letter = await self._letter(request)
        if letter is None:
            return _unknown(request)
        await self._office.replay(letter)
        return json_answer({"status": "queued"}, status=202)

    async def replay_many(self, request: web.Request) -> web.Response:
        """Send again what the filter wants, the oldest first, at most ``limit`` in one request."""
        report = await self._office.replay_many(*read_query(request.query))
        return json_answer(report_document(report), status=202)

    async def discard(self, request: web.Request) -> web.Response:
        """Forget one."""
        found = await self._office.box.discard(int(request.match_info["id"]))
        return web.Response(status=204) if found else _unknown(request)

    async def _letter(self, request: web.Request) -> DeadLetter | None:
        return await self._office.box.letter(int(request.match_info["id"]))

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            token = "" if self._admin.token is None else self._admin.token.get_secret_value()
            if not token:  # an empty one, as of a variable that was not filled, protects nothing
                if _from_loopback(request):
                    return await handler(request)
                return problem(403, "only from the loopback interface, or with a token (setting admin.token)")
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            alike = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
            if alike and scheme.lower() == "bearer":
                return await handler(request)
            return problem(401, "needs the bearer token of admin.token", headers={"WWW-Authenticate": "Bearer"})

        return guarded


def _from_loopback(request: web.Request) -> bool:
    # Behind a proxy on the same host, or in the same Pod, everybody would look like loopback: its headers tell.
    if request.remote is None or any(name.lower().startswith(_FORWARDED) for name in request.headers):
        return False
    return ip_address(request.remote.partition("%")[0]).is_loopback


def _unknown(request: web.Request) -> web.Response:
    return problem(404, f"there is no dead letter {request.match_info['id']} (any more)")
