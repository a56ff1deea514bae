"""Dead letters over HTTP: reading is open inside the cluster, replaying and discarding is not."""

import hmac
from ipaddress import ip_address

from aiohttp import web

from builder.adapters.web.answers import Answer, json_answer, problem
from builder.adapters.web.routes import Handler, Route
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.letter_document import document, page, read_query, report_document
from builder.settings import Admin

_FORWARDED = ("forwarded", "via", "x-forwarded-", "x-real-ip", "x-envoy-")


class DeadLetterRoutes:
    """``/async-jobs/dead-letters`` and below."""

    def __init__(self, office: DeadLetterOffice, admin: Admin) -> None:
        self._office = office
        self._admin = admin

    def routes(self) -> list[Route]:
        """All of them."""
        path = "/async-jobs/dead-letters"
        return [
            Route("GET", path, self.find),
            Route("GET", path + "/{id}", self.show),
            Route("POST", path + "/{id}/replay", self._guarded(self.replay)),
            Route("POST", path + "/replay", self._guarded(self.replay_many)),
            Route("DELETE", path + "/{id}", self._guarded(self.discard)),
        ]

    async def find(self, request: web.BaseRequest) -> Answer:
        """A page of letters, the newest first; ``next_before`` is what the page after it is asked for with."""
        wanted, limit = read_query(request.query)
        letters = await self._office.box.letters(wanted, limit)
        return json_answer({"count": await self._office.box.count(), **page(letters, limit)})

    async def show(self, request: web.BaseRequest, letter_id: str) -> Answer:
        """One letter, with its data where ``?body=true`` asks for it; the values of ``environment`` stay hidden."""
        letter = await self._office.box.letter(int(letter_id))
        if letter is None:
            return _unknown(letter_id)
        return json_answer(document(letter, with_data=request.query.get("body") == "true"))

    async def replay(self, _request: web.BaseRequest, letter_id: str) -> Answer:
        """Send one again."""
        letter = await self._office.box.letter(int(letter_id))
        if letter is None:
            return _unknown(letter_id)
        await self._office.replay(letter)
        return json_answer({"status": "queued"}, status=202)

    async def replay_many(self, request: web.BaseRequest) -> Answer:
        """Send again what the filter wants, the oldest first, at most ``limit`` in one request."""
        report = await self._office.replay_many(*read_query(request.query))
        return json_answer(report_document(report), status=202)

    async def discard(self, _request: web.BaseRequest, letter_id: str) -> Answer:
        """Forget one."""
        found = await self._office.box.discard(int(letter_id))
        return Answer(204) if found else _unknown(letter_id)

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.BaseRequest, *places: str) -> Answer:
            if self._admin.token is None:
                if _from_loopback(request):
                    return await handler(request, *places)
                return problem(403, "only from the loopback interface, or with a token (setting admin.token)")
            token = self._admin.token.get_secret_value()
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            alike = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
            if alike and scheme.lower() == "bearer":
                return await handler(request, *places)
            return problem(401, "needs the bearer token of admin.token", headers={"WWW-Authenticate": "Bearer"})

        return guarded


def _from_loopback(request: web.BaseRequest) -> bool:
    # Behind a proxy on the same host, or in the same Pod, everybody would look like loopback: its headers tell.
    if request.remote is None or any(name.lower().startswith(_FORWARDED) for name in request.headers):
        return False
    return ip_address(request.remote.partition("%")[0]).is_loopback


def _unknown(letter_id: str) -> Answer:
    return problem(404, f"there is no dead letter {letter_id} (any more)")
