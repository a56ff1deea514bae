"""What a hostile sender may try, field by field, to get something other than a build into the Pod."""

from typing import Any, NamedTuple

from tests.integration.messages import Document, build_of

TEXTS = (
    "$(GIT_PASSWORD)",
    "$$(GIT_PASSWORD)",
    "$((GIT_PASSWORD))",
    "--build-arg=EVIL=1",
    "x --destination=evil.example.com/x",
    "x,type=local,dest=/",
    'x",type=local,dest="/',
    "x\n--destination=evil.example.com/x",
    "x\n  hostNetwork: true\n",
    '"}],"hostNetwork":true,"containers":[{"name":"',
    "'; cat /proc/1/environ; '",
    "`id`",
    "${IFS}",
    "a=b=c",
    "../../../../etc/shadow",
    "..%2f..%2fetc",
    "%2e%2e/%2e%2e",
    "/dev/termination-log",
    "file:///etc/passwd",
    "dir:///kaniko/.docker",
    "tar://stdin",
    "#refs/heads/evil",
    "?checksum=evil",
    "\\",
    "\x1b[2J",
    "\x00",
    "\u202egnp.exe",
    "\uff04\uff08GIT_PASSWORD\uff09",
    "-",
    "--",
    " ",
    "trailing  ",
    "x" * 5000,
    "kubernetes.io/metadata.name",
    "{{ .Env.GIT_PASSWORD }}",
    "!!python/object/apply:os.system [id]",
)
OTHERS: tuple[Any, ...] = (True, -1, 1.5, 10**400, [], ["--x"], {"$ref": "#"}, {"secretKeyRef": {"name": "git"}})
"""Values of other types than the field's own."""

IDS = ("third_party_id", "parser_id", "correlation_id", "job_name", "priority")
PARAMETERS = ("build_type", "runtime", "source_url", "ref", "sub_path", "dockerfile", "build_timeout", "environment")
ATTRIBUTES = ("id", "source", "subject", "traceparent", "correlationid")
URLS = ("https://git.example.com/{}", "https://{}/a/b.git", "{}://git.example.com/a", "https://{}@git.example.com/a/b")
FOREIGN: dict[str, Any] = {
    "image": "evil.example.com/miner",
    "namespace": "kube-system",
    "serviceAccountName": "admin",
    "hostNetwork": True,
    "securityContext": {"privileged": True},
    "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    "command": ["sh"],
    "args": ["--privileged"],
    "labels": {"app.kubernetes.io/managed-by": "nobody"},
    "annotations": {"build.notifi.network/image": "evil.example.com/x"},
    "secret": "admin-token",
    "suspend": True,
}
"""Names of Kubernetes' own. Nobody knows them here."""


class Attempt(NamedTuple):
    """A value at a place in the event, which is otherwise an innocent one."""

    place: tuple[str, ...]
    value: Any

    def event(self, number: int) -> Document:
        """The event, for a target of its own unless that is what is attacked."""
        document = build_of(f"p{number}")
        inside = document
        for part in self.place[:-1]:
            inside = inside[part]
        inside[self.place[-1]] = self.value
        return document


def attempts() -> list[Attempt]:
    """All of them."""
    data, parameters = ("data",), ("data", "parameters")
    fields = [(*data, field) for field in IDS] + [(*parameters, field) for field in PARAMETERS]
    found = [Attempt(place, value) for place in fields for value in (*TEXTS, *OTHERS)]
    found += [Attempt((*parameters, "source_url"), url.format(text)) for url in URLS for text in TEXTS]
    found += [Attempt((*parameters, "environment"), {"NAME": text}) for text in TEXTS]
    found += [Attempt((*parameters, "environment"), {text: "value"}) for text in TEXTS]
    found += [Attempt((attribute,), text) for attribute in ATTRIBUTES for text in TEXTS]
    found += [Attempt((*where, name), value) for where in (data, parameters) for name, value in FOREIGN.items()]
    return found
