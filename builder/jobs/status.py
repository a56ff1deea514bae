"""What state a Job is in: the one place that reads a Job's status."""

from enum import StrEnum

from builder.models import Manifest


class JobState(StrEnum):
    """A Job's state, as far as the decisions need it."""

    ACTIVE = "active"
    """Pending or running, or ended in a way whose Pods may still be running; or suspended, and bound to run."""
    COMPLETE = "complete"
    FAILED = "failed"
    DELETING = "deleting"


def job_state(job: Manifest) -> JobState:
    """The state of a Job as the API server gave it.

    Only the conditions ``Complete`` and ``Failed`` say that a Job has ended and its Pods with it;
    ``SuccessCriteriaMet`` and ``FailureTarget`` come before that.
    https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    """
    if job["metadata"].get("deletionTimestamp"):
        return JobState.DELETING
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("status") == "True":
            match condition.get("type"):
                case "Complete":
                    return JobState.COMPLETE
                case "Failed":
                    return JobState.FAILED
    return JobState.ACTIVE


def is_suspended(job: Manifest) -> bool:
    """True while somebody, such as Kueue, keeps the Job from starting; its deadline begins when it may."""
    return job["spec"].get("suspend") is True


def phase(job: Manifest) -> str:
    """The state in a word for people, who tell a pending build from a running one."""
    state = job_state(job)
    if state is JobState.ACTIVE and is_suspended(job):
        return "suspended"
    if state is JobState.ACTIVE:
        return "running" if job.get("status", {}).get("ready") else "pending"
    return state.value
