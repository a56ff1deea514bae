"""What the API server refuses in a Job, in its own words, as far as a Job of ours could be wrong.

Compared with kube-apiserver 1.36. Each generator yields messages; no message means valid.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from builder.errors import Denied
from builder.models import Manifest

MAX_LABEL: Final = 63
MAX_NAME: Final = 253
MAX_ANNOTATIONS: Final = 256 * 1024
"""Bytes of all keys and values together."""

_LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_is_label = re.compile(_LABEL).fullmatch
_is_key = re.compile(_KEY).fullmatch
_is_dns_label = re.compile(_DNS_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch

_LABEL_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_LABEL}')"
)
_KEY_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_KEY}')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_DNS_LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_DNS_LABEL}')"
)


def check_job(job: Manifest, namespace: str) -> None:
    """Return if the API server would take the Job into this namespace.

    Raises:
        Denied: 400 if it would not understand it, 422 if something in it is not allowed.
    """
    for message in _misunderstandings(job, namespace):
        raise Denied(message, status=HTTPStatus.BAD_REQUEST)
    problems = list(dict.fromkeys(_problems(job)))
    if problems:
        listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        message = f'Job.batch "{job["metadata"].get("name", "")}" is invalid: {listed}'
        raise Denied(message, status=HTTPStatus.UNPROCESSABLE_ENTITY)


def _misunderstandings(job: Manifest, namespace: str) -> Iterator[str]:
    """Types that the API server cannot decode, and addresses that contradict each other."""
    if (job.get("apiVersion", "batch/v1"), job.get("kind", "Job")) != ("batch/v1", "Job"):
        yield f'no kind "{job.get("kind")}" is registered for version "{job.get("apiVersion")}"'
    metadata, spec = job["metadata"], job.get("spec", {})
    if metadata.get("namespace", namespace) != namespace:
        yield "the namespace of the provided object does not match the namespace sent on the request"
    for field in ("labels", "annotations"):
        for value in metadata.get(field, {}).values():
            if not isinstance(value, str):
                yield _undecodable(value, f"ObjectMeta.metadata.{field}", "string")
    for field in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        if type(spec.get(field, 0)) is not int:  # True would pass for an int
            yield _undecodable(spec[field], f"JobSpec.spec.{field}", "integer")


def _undecodable(value: object, field: str, wanted: str) -> str:
    what = f'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal {value!r}'
    return f"{what} into Go struct field {field} of type {wanted}"


def _problems(job: Manifest) -> Iterator[str]:
    metadata, spec = job["metadata"], job.get("spec", {})
    template = spec.get("template", {})
    yield from _in_name(metadata.get("name", ""))
    yield from _in_labels("metadata.labels", metadata.get("labels", {}))
    yield from _in_annotations("metadata.annotations", metadata.get("annotations", {}))
    for field in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        if spec.get(field, 0) < 0:
            yield f"spec.{field}: Invalid value: {spec[field]}: must be greater than or equal to 0"
    yield from _in_labels("spec.template.labels", template.get("metadata", {}).get("labels", {}))
    yield from _in_annotations("spec.template.annotations", template.get("metadata", {}).get("annotations", {}))
    yield from _in_pod(template.get("spec", {}))


def _in_name(name: str) -> Iterator[str]:
    if not name:
        yield "metadata.name: Required value: name or generateName is required"
        return
    if len(name) > MAX_NAME:
        yield f'metadata.name: Invalid value: "{name}": must be no more than {MAX_NAME} characters'
    if not _is_subdomain(name):
        yield f'metadata.name: Invalid value: "{name}": {_SUBDOMAIN_WORDS}'
    # The Job's name becomes a label of its Pods: this is why it may not be as long as other objects' names.
    for message in _in_label_value(name):
        yield f'spec.template.labels: Invalid value: "{name}": {message}'


def _in_labels(where: str, labels: dict[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        for message in _in_key(key):
            yield f'{where}: Invalid value: "{key}": {message}'
        for message in _in_label_value(value):
            yield f'{where}: Invalid value: "{value}": {message}'


def _in_annotations(where: str, annotations: dict[str, str]) -> Iterator[str]:
    size = 0
    for key, value in annotations.items():
        # To annotations, and to them alone, the case of a key does not matter.
        for message in _in_key(key.lower()):
            yield f'{where}: Invalid value: "{key}": {message}'
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS:
        yield f"{where}: Too long: may not be more than {MAX_ANNOTATIONS} bytes"


def _in_label_value(value: str) -> Iterator[str]:
    if len(value) > MAX_LABEL:
        yield f"must be no more than {MAX_LABEL} bytes"
    if not _is_label(value):
        yield _LABEL_WORDS


@lru_cache(maxsize=256)
def _in_key(key: str) -> tuple[str, ...]:
    """All Jobs have the same few keys: looking at each anew would be half of the cost of a creation."""
    return tuple(_problems_of_key(key))


def _problems_of_key(key: str) -> Iterator[str]:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= MAX_NAME and _is_subdomain(prefix)):
        yield f"prefix part {_SUBDOMAIN_WORDS}"
    if not name:
        yield "name part must be non-empty"
    if len(name) > MAX_LABEL:
        yield f"name part must be no more than {MAX_LABEL} bytes"
    if not _is_key(name):
        yield _KEY_WORDS


def _in_pod(pod: dict[str, Any]) -> Iterator[str]:
    where = "spec.template.spec"
    containers = pod.get("containers", [])
    if not containers:
        yield f"{where}.containers: Required value"
    names: set[str] = set()
    for index, container in enumerate(containers):
        yield from _in_container(f"{where}.containers[{index}]", container, names)
        names.add(container.get("name", ""))
    policy = pod.get("restartPolicy", "Always")  # the default of a Pod, which a Job may not have
    if policy not in {"Never", "OnFailure"}:
        yield f'{where}.restartPolicy: Required value: valid values: "OnFailure", "Never"'


def _in_container(where: str, container: dict[str, Any], taken: set[str]) -> Iterator[str]:
    name = container.get("name", "")
    if not name:
        yield f"{where}.name: Required value"
    elif len(name) > MAX_LABEL:
        yield f'{where}.name: Invalid value: "{name}": must be no more than {MAX_LABEL} characters'
    elif not _is_dns_label(name):
        yield f'{where}.name: Invalid value: "{name}": {_DNS_LABEL_WORDS}'
    elif name in taken:
        yield f'{where}.name: Duplicate value: "{name}"'
    if not container.get("image"):
        yield f"{where}.image: Required value"
