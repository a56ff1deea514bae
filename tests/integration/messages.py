"""Job start events as a sender puts them on the wire, written without the service's own encoders."""

import copy
import json
from typing import Any, TypeAlias

from tests import building

Document: TypeAlias = dict[str, Any]
"""A CloudEvent as one JSON object."""

Message: TypeAlias = tuple[dict[str, str], bytes]
"""Headers and body of an HTTP request."""


def example() -> Document:
    """004's example, word for word."""
    return copy.deepcopy(building.EXAMPLE)


def build_of(parser_id: str, event_id: str | None = None, **parameters: Any) -> Document:
    """An event for a target of the test's own; its id is the parser's unless given, and its correlation id is its id."""
    document = example()
    document["id"] = parser_id if event_id is None else event_id
    document["data"] = {
        "third_party_id": "acme",
        "parser_id": parser_id,
        "correlation_id": document["id"],
        "parameters": {"source_url": "https://git.example.com/acme/parsers.git", **parameters},
    }
    return document


def binary(document: Document) -> Message:
    """The attributes in headers, the data as the body."""
    attributes = {name: value for name, value in document.items() if name not in {"data", "datacontenttype"}}
    headers = {f"ce-{name}": value for name, value in attributes.items()}
    return headers | {"content-type": document["datacontenttype"]}, json.dumps(document["data"]).encode()


def structured(document: Document) -> Message:
    """All of it as the body."""
    return {"content-type": "application/cloudevents+json"}, json.dumps(document).encode()


def batch(*documents: Document) -> Message:
    """Several in one body."""
    return {"content-type": "application/cloudevents-batch+json"}, json.dumps(documents).encode()
