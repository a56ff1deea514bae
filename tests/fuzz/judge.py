"""What the service makes of a request, and whether that may be: rules written down a second time, from the design."""

import ipaddress
import json
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from builder.errors import EventRejected
from builder.events.parsing import Rejected, parse_http
from builder.events.request import build_request, with_data_problems
from builder.events.routing import route
from builder.jobs.manifest import build_job
from builder.models import Event, Manifest
from tests import building
from tests.fuzz.mutations import Case

SETTINGS = building.settings()
_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_TAG = re.compile(r"registry\.example\.com/[a-z0-9/-]+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_INSIDE = ("localhost", ".local", ".internal", ".svc", ".localhost", ".home.arpa")
_CONTEXTS = {"git", "s3", "gs", "https"}


class Verdict(NamedTuple):
    """``jobs`` by the identity of their events; ``rejected`` counts the events that get none."""

    jobs: dict[tuple[str, str], Manifest]
    rejected: int


def judge(made: Case) -> Verdict:
    """Read it as the door and the worker do. Raises AssertionError for anything that must not be."""
    _, items = parse_http(made.content_type, made.headers, made.body)
    jobs: dict[tuple[str, str], Manifest] = {}
    rejected = 0
    for item in items:
        job = _job_of(item)
        if job is None:
            rejected += 1
        elif isinstance(item, Event):
            jobs.setdefault((item.source, item.id), job)
    return Verdict(jobs, rejected)


def _job_of(item: Event | Rejected) -> Manifest | None:
    if isinstance(item, Rejected):
        told = with_data_problems(item, SETTINGS.build, SETTINGS.intake)
        _must_be_told(EventRejected(told.problems, told.status))
        json.dumps(dict(told.attributes), ensure_ascii=False).encode()
        return None
    try:
        route(item)
        request = build_request(item, building.NOON, SETTINGS.build, SETTINGS.intake)
    except EventRejected as exc:
        _must_be_told(exc)
        return None
    job = build_job(request, SETTINGS)
    assert 1 <= request.priority <= 10
    _must_be_right(item, job)
    return job


def _must_be_told(error: EventRejected) -> None:
    assert error.problems
    assert error.status in {400, 413, 415}
    for problem in error.problems:
        f"{problem.field}: {problem.message}".encode()
        assert problem.message


def _must_be_right(event: Event, job: Manifest) -> None:
    """A Job that may be made of this event."""
    json.dumps(job, ensure_ascii=False).encode()
    data: dict[str, Any] = json.loads(event.data)
    assert event.id, event
    assert event.source, event
    for name in ("third_party_id", "parser_id"):
        assert _ID.fullmatch(data[name]), data[name]
        assert ".." not in data[name]
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert job["metadata"].keys() == {"name", "labels", "annotations"}
    assert _NAME.fullmatch(job["metadata"]["name"]), job["metadata"]["name"]
    assert all(_LABEL.fullmatch(value) for value in job["metadata"]["labels"].values())
    notes = job["metadata"]["annotations"]
    told = [
        notes[f"build.notifi.network/{name}"] for name in ("event-id", "event-source", "third-party-id", "parser-id")
    ]
    assert told == [event.id, event.source, data["third_party_id"], data["parser_id"]]
    assert 1 <= job["spec"]["activeDeadlineSeconds"] <= SETTINGS.build.max_timeout
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for argument in container["args"]:
        _must_be_harmless(argument)
    assert _bare(job) in _PODS, "an event reached more of the Pod than the arguments"


def _must_be_harmless(argument: str) -> None:
    flag, _, value = argument.partition("=")
    assert "$" not in argument.replace("$$", ""), argument
    assert "\0" not in argument
    assert flag in _FLAGS, argument
    if flag == "--destination":
        assert _TAG.fullmatch(value), argument
    if flag in {"--context-sub-path", "--dockerfile"} and not value.startswith("/kaniko/"):
        assert not value.startswith("/"), argument
        assert ".." not in value.split("/"), argument
    if flag == "--context":
        _must_be_outside(value)


def _must_be_outside(context: str) -> None:
    """A place that an event may have read: nothing inside, nothing local."""
    url = urlsplit(context)
    assert url.scheme in _CONTEXTS, context
    assert context.isprintable(), context
    assert " " not in context, context
    assert url.username is None, context
    if url.scheme in {"s3", "gs"}:
        return
    host = url.hostname or ""
    assert "." in host, context
    assert not host.rstrip(".").endswith(_INSIDE), context
    assert not host.rstrip(".").rpartition(".")[2].isdigit() or ipaddress.ip_address(host).is_global, context


def _bare(job: Manifest) -> str:
    """The Pod without what an event may say: its arguments and its labels."""
    spec = job["spec"]["template"]["spec"]
    containers = [{name: value for name, value in one.items() if name != "args"} for one in spec["containers"]]
    return json.dumps(spec | {"containers": containers}, sort_keys=True)


def _honest(build_type: str, runtime: str | None) -> Manifest:
    parameters: dict[str, Any] = {} if runtime is None else {"runtime": runtime}
    event = building.event(build_type=build_type, **parameters)
    request = build_request(event, building.NOON, SETTINGS.build, SETTINGS.intake)
    return build_job(request, SETTINGS)


_MODELS = [_honest("container", None), *(_honest("function", runtime) for runtime in SETTINGS.build.runtimes)]
_PODS = {_bare(job) for job in _MODELS}
_ARGUMENTS = [one for job in _MODELS for one in job["spec"]["template"]["spec"]["containers"][0]["args"]]
_FLAGS = {argument.partition("=")[0] for argument in _ARGUMENTS} | {"--context-sub-path", "--build-arg", "--dockerfile"}
