"""An admission webhook of a test's own: what policy engines and side-car injectors are to the API server."""

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from builder.models import Manifest
from tests.integration.namespace import Namespace

Verdict: TypeAlias = dict[str, Any]
"""The ``response`` of an AdmissionReview, without its uid."""

ALLOWED: Verdict = {"allowed": True}


def denied(words: str, code: int) -> Verdict:
    """It must not be, and why."""
    return {"allowed": False, "status": {"code": code, "message": words}}


def changed(*operations: dict[str, Any]) -> Verdict:
    """It may be, with these changes (https://www.rfc-editor.org/rfc/rfc6902)."""
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


@contextmanager
def webhook(namespace: Namespace, kind: str, decide: Callable[[Manifest], Verdict]) -> Iterator[None]:
    """Ask ``decide`` about each Job that is to be created in the namespace; ``kind`` is Mutating or Validating.

    Without a verdict it answers 500.
    """
    plane = namespace.plane
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(plane.ca_file, plane.ca_file.with_suffix(".key"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(decide))
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    name = f"{kind.lower()}.{namespace.name}.example.com"
    hook = {
        "name": name,
        "clientConfig": {
            "url": f"https://127.0.0.1:{server.server_port}",
            "caBundle": base64.b64encode(plane.ca_file.read_bytes()).decode(),
        },
        "rules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }
    plane.kubectl("create", "-f", "-", input=json.dumps(configuration))
    try:
        yield
    finally:
        plane.kubectl("delete", f"{kind}WebhookConfiguration", name)
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(decide: Callable[[Manifest], Verdict]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = review["request"]
            verdict = decide(request["object"])
            review["response"] = {"uid": request["uid"], **verdict}
            body = json.dumps(review).encode()
            self.send_response(200 if verdict else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """No word on a test's output."""

    return Handler
