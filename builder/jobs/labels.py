"""The labels and annotations by which we, and others, know our Jobs."""

from builder.models import Manifest

NAME = "app.kubernetes.io/name"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
OURSELVES = "knative-lambda-builder"

_PREFIX = "build.notifi.network/"
THIRD_PARTY_ID = _PREFIX + "third-party-id"
PARSER_ID = _PREFIX + "parser-id"
CORRELATION_ID = _PREFIX + "correlation-id"
EVENT_ID = _PREFIX + "event-id"
EVENT_SOURCE = _PREFIX + "event-source"
FINGERPRINT = _PREFIX + "fingerprint"
REQUESTED_AT = _PREFIX + "requested-at"
PRIORITY = _PREFIX + "priority"
IMAGE = _PREFIX + "image"
TRACEPARENT = _PREFIX + "traceparent"
REPLACED = _PREFIX + "replaced"

QUEUE = "kueue.x-k8s.io/queue-name"
CONTAINER = "kubectl.kubernetes.io/default-container"
"""Of a Pod: the container that matters."""


def annotations(job: Manifest) -> dict[str, str]:
    """A Job's annotations; none where somebody took them all away."""
    found: dict[str, str] | None = job["metadata"].get("annotations")
    return {} if found is None else found
