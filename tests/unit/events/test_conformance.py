"""The CloudEvents project's own conformance files, from the folder that ``CONFORMANCE_DIR`` names.

https://github.com/cloudevents/conformance
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.errors import Problem
from builder.events.attributes import parse_time
from builder.events.parsing import STRUCTURED_TYPE, Rejected, parse_http
from builder.models import Event

FOLDER = Path(os.environ.get("CONFORMANCE_DIR", "conformance-dir-is-not-set")) / "cloudevents"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="CONFORMANCE_DIR names no folder with cloudevents/")


def scenarios() -> Iterator[tuple[str, dict[str, str], object]]:
    """Request, expected attributes and expected data of each example in the HTTP feature.

    A reader of just what that file uses: one request, one table and one JSON text per outline, one placeholder.
    """
    text = (FOLDER / "features" / "http-protocol-binding.feature").read_text()
    for outline in text.split("Scenario Outline:")[1:]:
        request, data = (
            re.sub(r"(?m)^ {8}", "", block).strip("\n")
            for block in re.findall(r'"""\n(.*?)\n *"""', outline, re.DOTALL)
        )
        table, examples = outline.split("Examples:")
        rows = re.findall(r"\|\s*(\w+)\s*\|\s*(.*?)\s*\|", table)[1:]
        for content_type in re.findall(r"\|\s*(.*?)\s*\|", examples)[1:]:
            expected = {name: value.replace("<contentType>", content_type) for name, value in rows}
            yield request.replace("<contentType>", content_type), expected, json.loads(data)


def documents(name: str) -> list[dict[str, Any]]:
    """The events of a YAML file, every scalar as the text that stands there."""
    return list(yaml.load_all((FOLDER / "yaml" / name).read_text(), Loader=yaml.BaseLoader))


def attributes_of(document: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Attributes with extensions, and the data's type."""
    attributes = {name: value for name, value in document["ContextAttributes"].items() if isinstance(value, str)}
    extensions = document["ContextAttributes"].get("Extensions", {})
    content_type = attributes.pop("datacontenttype", "application/json")
    return attributes | {name: value.strip() for name, value in extensions.items()}, content_type


def as_sent(event: Event) -> dict[str, str]:
    """The event's attributes as a sender wrote them."""
    core = {"specversion": "1.0", "id": event.id, "type": event.type, "source": event.source, **event.extensions}
    return core if event.time is None else {**core, "time": event.time.strftime("%Y-%m-%dT%H:%M:%SZ")}


def test_http_protocol_binding() -> None:
    """Each example of the feature, as an HTTP server hands it to us."""
    seen = 0
    for request, expected, data in scenarios():
        head, _, body = request.partition("\n\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head.split("\n")[1:])]
        (event,) = parse_http(dict(headers)["Content-Type"], headers, body.encode()).items
        assert isinstance(event, Event)
        assert as_sent(event) | {"datacontenttype": expected["datacontenttype"]} == expected
        assert json.loads(event.data) == data
        seen += 1
    assert seen == 4


@pytest.mark.parametrize("name", ["v1.yaml", "v1.0/v1_minimum.yaml"])
def test_version_1_events(name: str) -> None:
    """In binary and structured mode; what is no JSON is told so, and is a readable event all the same."""
    for document in documents(name):
        attributes, content_type = attributes_of(document)
        data = document["Data"].strip()
        is_json = content_type.startswith("application/json")
        headers = [(f"ce-{key}", value) for key, value in attributes.items()]
        members = {**attributes, "datacontenttype": content_type, "data": json.loads(data) if is_json else data}
        for item in (
            *parse_http(content_type, headers, data.encode()).items,
            *parse_http(STRUCTURED_TYPE, [], json.dumps(members).encode()).items,
        ):
            if is_json:
                assert isinstance(item, Event)
                assert as_sent(item) == attributes
                assert json.loads(item.data) == json.loads(data)
            else:
                assert isinstance(item, Rejected)
                assert item.status == 415
                assert {key: item.attributes[key] for key in attributes} == attributes


@pytest.mark.parametrize("name", ["v03.yaml", "v0.3/v03_minimum.yaml"])
def test_version_0_3_is_refused(name: str) -> None:
    """001-R001: only 1.0 is spoken here, and the answer says so."""
    for document in documents(name):
        attributes, _ = attributes_of(document)
        attributes.pop("datacontentencoding", None)
        headers = [(f"ce-{key}", value) for key, value in attributes.items()]
        (item,) = parse_http("application/json", headers, b"{}").items
        assert isinstance(item, Rejected)
        assert item.problems == (Problem("specversion", "must be 1.0"),)


def test_times_are_read() -> None:
    """The comparison above writes times back; this one is the reader's own."""
    assert parse_time("2018-04-05T03:56:24Z").isoformat() == "2018-04-05T03:56:24+00:00"
