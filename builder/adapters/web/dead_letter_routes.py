"""Dead letters over HTTP: reading is open inside the cluster, replaying and discarding is not."""

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web

from builder.adapters.web.answers import json_answer, not_now, problem, rejected
from builder.errors import EventRejected, NotNow
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.letter_document import document, read_query
from builder.models import DeadLetter
from builder.settings import Admin

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
        """A page of letters, the newest first; ``next`` is the query of the page after it."""
        try:
            wanted, limit = read_query(request.query)
        except EventRejected as exc:
            return rejected(exc)
        letters = await self._office.box.letters(wanted, limit)
        following = letters[-1].id if len(letters) == limit else None
        count = await self._office.box.count()
        return json_answer({"count": count, "items": [document(letter) for letter in letters], "next_before": following})

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
        try:
            await self._office.replay(letter)
        except EventRejected as exc:
            return rejected(exc)
        except NotNow as exc:
            return not_now(exc)
        return json_answer({"status": "queued"}, status=202)

    async def replay_many(self, request: web.Request) -> web.Response:
        """Send again what the filter wants, the oldest first, at most ``limit`` in one request."""
        try:
            wanted, limit = read_query(request.query)
        except EventRejected as exc:
            return rejected(exc)
        report = await self._office.replay_many(wanted, limit)
        still_wrong = [{"id": letter_id, "message": message} for letter_id, message in report.rejected.items()]
        return json_answer({"queued": report.queued, "rejected": still_wrong}, status=202)

    async def discard(self, request: web.Request) -> web.Response:
        """Forget one."""
        found = await self._office.box.discard(int(request.match_info["id"]))
        return web.Response(status=204) if found else _unknown(request)

    async def _letter(self, request: web.Request) -> DeadLetter | None:
        return await self._office.box.letter(int(request.match_info["id"]))

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            token = self._admin.token
            if token is None:
                if _from_loopback(request):
                    return await handler(request)
                return problem(403, "only from the loopback interface, or with a token (setting admin.token)")
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if hmac.compare_digest(given.encode(errors="replace"), token.get_secret_value().encode()):
                return await handler(request)
            return problem(401, "needs the bearer token of admin.token", headers={"WWW-Authenticate": "Bearer"})

        return guarded


def _from_loopback(request: web.Request) -> bool:
    # Behind a proxy on the same host everybody would look like loopback: a Forwarded header gives that away.
    if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers or request.remote is None:
        return False
    return ip_address(request.remote.partition("%")[0]).is_loopback


def _unknown(request: web.Request) -> web.Response:
    return problem(404, f"there is no dead letter {request.match_info['id']} (any more)")
