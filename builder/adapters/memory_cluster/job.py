"""One Job of the embedded cluster: what has happened to it, and how the API server would show that."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, assert_never

from pydantic_core import from_json

from builder.models import Manifest

_REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")


class State(Enum):
    """How far the build has come."""

    PENDING = auto()
    RUNNING = auto()
    STOPPING = auto()
    """Past its deadline, and its Pod is still there."""
    COMPLETE = auto()
    DEADLINE_EXCEEDED = auto()
    BACKOFF_LIMIT_EXCEEDED = auto()


@dataclass(slots=True, eq=False)
class MemoryJob:
    """What the cluster knows about a Job. Times are seconds since 1970; ``text`` is the manifest as it was created."""

    name: str
    namespace: str
    uid: str
    text: bytes
    created_at: float
    deadline: int | None
    time_to_live: int | None
    state: State = State.PENDING
    version: int = 0
    has_pod: bool = True
    stopped_at: float = 0.0
    ended_at: float = 0.0
    deleted_at: float | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def pod(self) -> str:
        """The Pod's name, made of the Job's and a suffix as the Job controller's is."""
        return f"{self.name[:57]}-{self.uid[:5]}"

    def cancel_timer(self) -> None:
        """Nothing happens to it by itself any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def manifest(self) -> Manifest:
        """The Job as a GET shows it, with the defaults of the Job itself; those of its Pod are left out."""
        job: Manifest = from_json(self.text)
        spec, template = job["spec"], job["spec"]["template"]
        backoff_limit = spec.get("backoffLimit", 6)
        defaults = {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": backoff_limit,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": self.uid}},
            "manualSelector": False,
            "completionMode": "NonIndexed",
            "podReplacementPolicy": "TerminatingOrFailed",
        }
        labelled = self._labelled(template.get("metadata", {}))
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"labels": labelled["labels"]} | job["metadata"] | self._given_by_server(),
            # Nobody else is in here who could let a suspended Job start: it never is.
            "spec": defaults | spec | {"suspend": False, "template": template | {"metadata": labelled}},
            "status": self._status(backoff_limit),
        }

    def _given_by_server(self) -> dict[str, Any]:
        metadata = {
            "namespace": self.namespace,
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "generation": 1 if self.deleted_at is None else 2,
            "creationTimestamp": _timestamp(self.created_at),
        }
        if self.deleted_at is None:
            return metadata
        return metadata | {
            "deletionTimestamp": _timestamp(self.deleted_at),
            "deletionGracePeriodSeconds": 0,
            "finalizers": ["foregroundDeletion"],
        }

    def _labelled(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The template's metadata with the labels by which the Job knows its Pods."""
        labels = {
            **metadata.get("labels", {}),
            "batch.kubernetes.io/controller-uid": self.uid,
            "batch.kubernetes.io/job-name": self.name,
            "controller-uid": self.uid,
            "job-name": self.name,
        }
        return metadata | {"labels": labels}

    def _status(self, backoff_limit: int) -> dict[str, Any]:
        """As the Job controller of Kubernetes 1.36 writes it."""
        status = {"startTime": _timestamp(self.created_at), "terminating": 0, "uncountedTerminatedPods": {}, "ready": 0}
        match self.state:
            case State.PENDING:
                return status | {"active": 1}
            case State.RUNNING:
                return status | {"active": 1, "ready": 1}
            case State.STOPPING:
                conditions = [_condition("FailureTarget", self.stopped_at, _DEADLINE)]
                return status | {"failed": 1, "terminating": 1, "conditions": conditions}
            case State.DEADLINE_EXCEEDED:
                conditions = [
                    _condition("FailureTarget", self.stopped_at, _DEADLINE),
                    _condition("Failed", self.ended_at, _DEADLINE),
                ]
                return status | {"failed": 1, "conditions": conditions}
            case State.BACKOFF_LIMIT_EXCEEDED:
                conditions = [_condition(kind, self.ended_at, _BACKOFF) for kind in ("FailureTarget", "Failed")]
                return status | {"failed": backoff_limit + 1, "conditions": conditions}
            case State.COMPLETE:
                conditions = [_condition(kind, self.ended_at, _REACHED) for kind in ("SuccessCriteriaMet", "Complete")]
                return status | {
                    "succeeded": 1,
                    "completionTime": _timestamp(self.ended_at),
                    "conditions": conditions,
                }
        assert_never(self.state)


def _condition(kind: str, at: float, why: tuple[str, str]) -> dict[str, str]:
    reason, message = why
    when = _timestamp(at)
    return {
        "type": kind,
        "status": "True",
        "lastProbeTime": when,
        "lastTransitionTime": when,
        "reason": reason,
        "message": message,
    }


def _timestamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
