"""Git over HTTPS, as the usual servers speak it: git's own http-backend behind a name and a password.

Repositories under ``public`` are open to everybody; others want the account.
"""

import base64
import os
import ssl
import subprocess
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from node.places import GIT, HTTPS

BACKEND = Path("/usr/lib/git-core/git-http-backend")
_MOST_CHUNKS = 10_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: ClassVar[str]
    account: ClassVar[str]

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        if not path.startswith("/public/") and not self._is_known():
            self._reply(HTTPStatus.UNAUTHORIZED, [("WWW-Authenticate", 'Basic realm="git"')], b"")
            return
        head, _, answer = self._ask_git(path, query, body).partition(b"\r\n\r\n")
        headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in head.decode().splitlines())]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), HTTPStatus.OK)
        self._reply(status, [pair for pair in headers if pair[0] != "Status"], answer)

    def _ask_git(self, path: str, query: str, body: bytes) -> bytes:
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.repositories,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            # The repositories are the test's, whoever that is.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        return subprocess.run([BACKEND], env=environ, input=body, capture_output=True, check=True).stdout

    def _is_known(self) -> bool:
        wanted = "Basic " + base64.b64encode(self.account.encode()).decode()
        return self.headers.get("Authorization", "").lower() == wanted.lower()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        for _ in range(_MOST_CHUNKS):
            chunk = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            if not chunk:
                break
            chunks.append(chunk)
        return b"".join(chunks)

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(repositories: str, certificate: str, key: str) -> None:
    """Serve for ever; the account, ``name:password``, is in the variable GIT_ACCOUNT."""
    _Handler.repositories, _Handler.account = repositories, os.environ["GIT_ACCOUNT"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer((GIT, HTTPS), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
