"""What people, probes and Prometheus read."""

from aiohttp import web

from builder.adapters.web.answers import json_answer, problem
from builder.flow.overview import Overview
from builder.metrics import Metrics


class StatusRoutes:
    """Reading is open inside the cluster; nothing here changes anything."""

    def __init__(self, overview: Overview, metrics: Metrics) -> None:
        self._overview = overview
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """All of them, the fixed names before the one that takes any."""
        return [
            web.get("/async-jobs/stats", self.stats),
            web.get("/async-jobs/{correlation_id:.+}", self.result),
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def stats(self, _request: web.Request) -> web.Response:
        """The pool and its queue."""
        return json_answer(self._overview.stats())

    async def result(self, request: web.Request) -> web.Response:
        """What became of one request."""
        correlation_id = request.match_info["correlation_id"]
        document = self._overview.result(correlation_id)
        if document is None:
            return problem(404, f"no request of correlation id {correlation_id!r} is known here (any more)")
        return json_answer(document)

    async def live(self, _request: web.Request) -> web.Response:
        """The process turns its loop: more is not asked, for a restart would mend nothing else."""
        return json_answer({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """Whether to send traffic here."""
        reason = self._overview.not_ready()
        return json_answer({"status": "ready"}) if reason is None else problem(503, reason)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' exposition."""
        try:
            body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # prometheus-client trips over a version that is no number
            body, content_type = self._metrics.render("")
        return web.Response(body=body, headers={"Content-Type": content_type})
