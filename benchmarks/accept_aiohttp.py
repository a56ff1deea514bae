"""The fused peer: bare aiohttp and one ``model_validate_json``; no envelope, no deduplication, no queue, no log."""

from aiohttp import web

from benchmarks.sockets import bound_socket
from builder.events.job_start import JobStart

ANSWER = b'{"status":"queued"}'


async def receive(request: web.Request) -> web.Response:
    """Parse and validate the data in one go."""
    JobStart.model_validate_json(await request.read())
    return web.Response(status=202, body=ANSWER, content_type="application/json")


def main() -> None:
    """Print the URL and serve until SIGTERM."""
    app = web.Application()
    app.router.add_post("/", receive)
    web.run_app(app, sock=bound_socket(), access_log=None, print=None)


if __name__ == "__main__":
    main()
