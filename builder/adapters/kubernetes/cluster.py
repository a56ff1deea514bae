"""The API server over HTTP, with kubernetes-asyncio's credentials, TLS and proxies.

The library's own call path (``BatchV1Api``) is left out: it copies the manifest, makes model classes of each answer and
visits two threads per call. Sending bytes and reading a status takes a third of the CPU.
"""

import asyncio
import errno
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Self
from urllib.parse import quote

import aiohttp
import structlog
from kubernetes_asyncio.client.rest import RESTClientObject
from kubernetes_asyncio.config.config_exception import ConfigException
from yarl import URL

from builder import __version__
from builder.adapters.kubernetes.access import Access, find_access
from builder.adapters.kubernetes.answers import (
    CREATE,
    DELETE,
    READ,
    Answer,
    Rule,
    error_for,
    json_object,
    readable,
    warnings,
)
from builder.errors import ClusterError, Denied, StartError, Transient, Unreachable
from builder.models import Manifest
from builder.settings import Kubernetes

_JSON = "application/json"
# Of a Job just created we want to know nothing. Asking for its metadata alone spares the API server the rest: a fifth
# more Jobs per second where CPU is short.
# https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
_LITTLE = f"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"
_HEADERS = {
    "Content-Type": _JSON,
    "User-Agent": f"knative-lambda-builder/{__version__}",  # its first word is the manager in the Jobs' managedFields
}
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_VERBS = ("create", "get", "delete")

log = structlog.get_logger(__name__)


class KubernetesCluster:
    """The Jobs of ``namespace`` in a Kubernetes cluster. Safe for any number of concurrent calls."""

    def __init__(self, session: aiohttp.ClientSession, access: Access, namespace: str, settings: Kubernetes) -> None:
        """``open`` makes them; ``session`` has the TLS of ``access``."""
        self.namespace = namespace
        self._session = session
        self._access = access
        self._settings = settings
        self._renewal = asyncio.Lock()
        self._host = access.configuration.host or ""
        self._jobs = f"/apis/batch/v1/namespaces/{quote(namespace, safe='')}/jobs"
        self._timeout = aiohttp.ClientTimeout(total=settings.request_timeout, connect=settings.connect_timeout)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Kubernetes, environ: Mapping[str, str] | None = None) -> AsyncIterator[Self]:
        """Find the cluster and hold the connections to it. Nothing is sent yet: ``probe`` tells whether it answers.

        ``environ`` is the process's environment unless given.

        Raises:
            StartError: there are no credentials, or they cannot be used.
        """
        access = await find_access(os.environ if environ is None else environ)
        configuration = access.configuration
        configuration.connection_pool_maxsize = 0  # without a bound: the callers are a bounded pool themselves
        try:
            rest = RESTClientObject(configuration)
        except OSError as exc:  # ssl.SSLError is one
            msg = f"the certificates for {configuration.host} cannot be used: {exc}"
            raise StartError(msg) from exc
        namespace = next((name for name in (settings.namespace, access.namespace) if name is not None), "default")
        log.info("kubernetes", server=configuration.host, namespace=namespace)
        try:
            # Its connections, and a session of ours around them: see _complete in access.py.
            async with aiohttp.ClientSession(
                connector=rest.pool_manager.connector,
                connector_owner=False,
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session:
                yield cls(session, access, namespace, settings)
        finally:
            await rest.close()

    async def create(self, job: Manifest) -> None:
        """See ``Cluster``."""
        _check(await self._ask("POST", self._jobs, job, accept=_LITTLE), CREATE)

    async def get(self, name: str) -> Manifest | None:
        """See ``Cluster``."""
        answer = await self._ask("GET", self._job(name))
        return None if answer.status == HTTPStatus.NOT_FOUND else _object(answer)

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """See ``Cluster``."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            # Left out, it means Orphan for Jobs: the Pod would go on building and push over the next image.
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        answer = await self._ask("DELETE", self._job(name), options)
        if answer.status != HTTPStatus.NOT_FOUND:
            _check(answer, DELETE)

    async def probe(self) -> None:
        """See ``Cluster``.

        ``/readyz`` covers etcd, which ``/version`` does not; it is exempt from flow control, open to everybody whom the
        server knows (``system:public-info-viewer``), and refuses a bad token like any other call. In hardened clusters
        where that role was taken away, an answer to the question what we may do is proof enough.
        """
        answer = await self._send("GET", "/readyz")
        if answer.status != HTTPStatus.FORBIDDEN:
            _check(answer, READ)
        elif (await self._review("create")).status == HTTPStatus.FORBIDDEN:
            msg = (
                "the API server forbids everything, even a SelfSubjectAccessReview: it is starting and knows no roles "
                "yet, or the ClusterRole system:basic-user is not bound"
            )
            raise Unreachable(msg)

    async def missing_permissions(self) -> list[str]:
        """See ``Rights``."""
        return [f"{verb} jobs.batch in namespace {self.namespace}" for verb in _VERBS if not await self._may(verb)]

    async def rehearse(self, job: Manifest) -> tuple[str, ...]:
        """Have the API server go through the creation of a Job without making it; what it warns of.

        Raises:
            ClusterError: it would not take the Job, or there is no such namespace.
        """
        answer = await self._ask("POST", f"{self._jobs}?dryRun=All", job, accept=_LITTLE)
        _check(answer, CREATE)
        return answer.warnings

    async def _may(self, verb: str) -> bool:
        return _object(await self._review(verb)).get("status", {}).get("allowed") is True

    async def _review(self, verb: str) -> Answer:
        attributes = {"namespace": self.namespace, "verb": verb, "group": "batch", "resource": "jobs"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        return await self._send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)

    async def _ask(self, method: str, path: str, body: object = None, *, accept: str = _JSON) -> Answer:
        """An answer that counts. A denial does only if a server says it that was ready before it was asked.

        For a second or two after its start, the API server lets requests in and knows no roles. It forbids then, in the
        usual words, what it will allow in a moment.
        """
        answer = await self._send(method, path, body, accept=accept)
        if answer.status != HTTPStatus.FORBIDDEN or not isinstance(error_for(answer, READ), Denied):
            return answer
        try:
            await self.probe()
        except ClusterError as exc:
            msg = f"the API server is not ready; it says: {error_for(answer, READ)}"
            raise Unreachable(msg) from exc
        return await self._send(method, path, body, accept=accept)

    def _job(self, name: str) -> str:
        return f"{self._jobs}/{quote(name, safe='')}"

    async def _send(self, method: str, path: str, body: object = None, *, accept: str = _JSON) -> Answer:
        """One call; a second one if the first is refused for a token that has been replaced meanwhile."""
        url = URL(self._host + path, encoded=True)
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        token = await self._token()
        answer = await self._request(method, url, data, accept, token)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            renewed = await self._renew(token)
            if renewed != token:
                answer = await self._request(method, url, data, accept, renewed)
        return answer

    async def _token(self) -> str | None:
        """The Authorization header. In a Pod, the library's hook in here reads the token file anew once a minute."""
        configuration = self._access.configuration
        # A file that cannot be read: the token that we have works a while longer, as in client-go; if not, a 401 tells.
        with suppress(OSError, ConfigException):
            await configuration.get_api_key_with_prefix("BearerToken")
        token: str | None = configuration.api_key.get("BearerToken")
        return None if token is None else token.strip()  # a file may end with a newline, a header may not

    async def _renew(self, refused: str | None) -> str | None:
        """The token after a 401, read anew by the first call that was refused."""
        async with self._renewal:
            token = await self._token()
            if token != refused:
                return token
            try:
                async with asyncio.timeout(self._settings.request_timeout):  # a kubeconfig's plugin may hang
                    await self._access.reload()
            except (StartError, TimeoutError) as exc:
                log.warning("credentials_not_renewed", error=str(exc) or "timed out")
            return await self._token()

    async def _request(self, method: str, url: URL, data: bytes | None, accept: str, token: str | None) -> Answer:
        """Send, and read the answer to its end, so that the connection can be used again."""
        configuration = self._access.configuration
        headers = {"Accept": accept} if token is None else {"Accept": accept, "Authorization": token}
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                proxy=configuration.proxy,
                proxy_headers=configuration.proxy_headers,
                server_hostname=configuration.tls_server_name,
            ) as response:
                return Answer(
                    response.status,
                    response.reason or "",
                    await response.read(),
                    response.headers.get("Retry-After"),
                    warnings(response.headers.getall("Warning", ())),
                )
        except _NO_CONNECTION as exc:
            raise Unreachable(readable(f"{url.host}:{url.port}: {self._why(exc)}")) from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Transient(readable(f"{method} to {url.host}:{url.port}: {self._why(exc)}")) from exc

    def _why(self, exc: Exception) -> str:
        """What went wrong on the way, in plain words."""
        match exc:
            case aiohttp.ConnectionTimeoutError():
                return f"no connection within {self._settings.connect_timeout:g} s"
            case TimeoutError():
                return f"no answer within {self._settings.request_timeout:g} s"
            case aiohttp.ClientProxyConnectionError():
                return f"the proxy {exc.host}:{exc.port}: {_os_words(exc.os_error)}"
            case aiohttp.ClientHttpProxyError():
                return f"the proxy answered {exc.status} {exc.message}"
            case aiohttp.ClientConnectorError():
                return _os_words(exc.os_error)
        return str(exc) or type(exc).__name__


def _os_words(error: OSError) -> str:
    """``Connection refused`` rather than asyncio's ``Connect call failed ('127.0.0.1', 6443)``."""
    if error.errno is not None and error.errno in errno.errorcode and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _check(answer: Answer, rules: tuple[Rule, ...]) -> None:
    """Return after a 2xx, raise what anything else means."""
    if not answer.ok:
        raise error_for(answer, rules)


def _object(answer: Answer) -> Manifest:
    """The object that was asked for."""
    _check(answer, READ)
    found = json_object(answer.body)
    if found is None:
        msg = f"the answer {answer.status} is no JSON object: {answer.body[:100]!r}"
        raise Transient(msg, status=answer.status)
    return found
