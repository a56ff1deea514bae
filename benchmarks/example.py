"""004's example event in binary mode, as many different ones of it as a benchmark needs."""

import json
from collections.abc import Iterator

from builder.events.parsing import parse_http
from builder.models import Event
from tests.building import EXAMPLE, THIRD_PARTY

CONTENT_TYPE = "application/json"


def headers(event_id: str) -> dict[str, str]:
    """The headers, spelled as Knative's dispatcher spells them."""
    attributes = {name: value for name, value in EXAMPLE.items() if name not in {"data", "datacontenttype"}}
    fields = {f"Ce-{name.capitalize()}": value for name, value in attributes.items()}
    return {**fields, "Ce-Id": event_id, "Content-Type": CONTENT_TYPE}


def body(correlation_id: str, parser_id: str | None = None) -> bytes:
    """The data. Another ``parser_id`` makes it another target, with a Job of its own."""
    data = EXAMPLE["data"] | {"correlation_id": correlation_id}
    if parser_id is not None:
        parameters = data["parameters"] | {"source_url": f"https://github.com/notifi/parsers/{parser_id}"}
        job_name = f"kaniko-job-{THIRD_PARTY}-{parser_id}"
        data |= {"parser_id": parser_id, "job_name": job_name, "parameters": parameters}
    return json.dumps(data).encode()


def request(event_id: str) -> str:
    """The whole HTTP request as it goes over the wire. Ids of one length make requests of one length.

    The id is also that of the parser, so that no two requests are for one target or one source URL.
    """
    data = body(event_id, event_id).decode()
    fields = {"Host": "builder", **headers(event_id), "Content-Length": str(len(data))}
    return "\r\n".join(["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", data])


def events(count: int, prefix: str) -> Iterator[Event]:
    """Parsed as the receiver does it, each from bytes of its own, each for a target of its own."""
    for number in range(count):
        name = prefix + f"{number:032d}"[len(prefix) :]
        _, (item,) = parse_http(CONTENT_TYPE, headers(name).items(), body(name, name))
        if not isinstance(item, Event):
            raise TypeError(item.problems)
        yield item
