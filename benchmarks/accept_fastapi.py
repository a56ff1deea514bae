"""The usual peer: FastAPI on uvicorn[standard] with the CloudEvents SDK and a pydantic model.

Parse and validation only: no deduplication, no queue, no log. Set up generously: the answer's bytes are ready-made, and
uvicorn's access log is off.
"""

import uvicorn
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from fastapi import FastAPI, Request, Response

from benchmarks.sockets import bound_socket
from builder.events.job_start import JobStart

ANSWER = b'{"status":"queued"}'

app = FastAPI()


@app.post("/")
async def receive(request: Request) -> Response:
    """Parse the event with the SDK and validate its data with the model."""
    event = from_http_event(HTTPMessage(dict(request.headers), await request.body()))
    JobStart.model_validate(event.get_data())
    return Response(ANSWER, status_code=202, media_type="application/json")


def main() -> None:
    """Print the URL and serve until SIGTERM."""
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[bound_socket()])


if __name__ == "__main__":
    main()
