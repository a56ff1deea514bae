"""What people, probes and Prometheus read."""

from aiohttp import web

from builder.adapters.web.answers import Answer, json_answer, problem
from builder.adapters.web.routes import Route
from builder.flow.overview import Overview
from builder.metrics import Metrics


class StatusRoutes:
    """Reading is open inside the cluster; nothing here changes anything."""

    def __init__(self, overview: Overview, metrics: Metrics) -> None:
        self._overview = overview
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("GET", "/async-jobs/stats", self.stats),
            Route("GET", "/async-jobs/{correlation_id}", self.result),
            Route("GET", "/health/live", self.live),
            Route("GET", "/health/ready", self.ready),
            Route("GET", "/metrics", self.metrics),
        ]

    async def stats(self, _request: web.BaseRequest) -> Answer:
        """The pool and its queue."""
        return json_answer(self._overview.stats())

    async def result(self, _request: web.BaseRequest, correlation_id: str) -> Answer:
        """What became of one request."""
        document = self._overview.result(correlation_id)
        if document is None:
            return problem(404, f"no request of correlation id {correlation_id!r} is known here (any more)")
        return json_answer(document)

    async def live(self, _request: web.BaseRequest) -> Answer:
        """The process turns its loop: more is not asked, for a restart would mend nothing else."""
        return json_answer({"status": "ok"})

    async def ready(self, _request: web.BaseRequest) -> Answer:
        """Whether to send traffic here."""
        reason = self._overview.not_ready()
        return json_answer({"status": "ready"}) if reason is None else problem(503, reason)

    async def metrics(self, request: web.BaseRequest) -> Answer:
        """Prometheus' exposition."""
        try:
            body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # prometheus-client trips over a version that is no number
            body, content_type = self._metrics.render("")
        return Answer(body=body, headers={"Content-Type": content_type})
