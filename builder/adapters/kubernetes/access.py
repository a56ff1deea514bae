"""Where the API server is and who we are there: the Pod's own service account, else a kubeconfig."""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config.incluster_config import InClusterConfigLoader
from kubernetes_asyncio.config.kube_config import load_kube_config
from yarl import URL

from builder.errors import StartError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a Pod's token, CA and namespace."""


@dataclass(frozen=True, slots=True)
class Access:
    """A way into one cluster.

    ``reload`` reads the credentials anew, from wherever they came, into the same ``configuration``; it raises
    StartError where that fails. ``namespace`` is the one that belongs to the credentials, or None.
    """

    configuration: Configuration
    reload: Callable[[], Awaitable[None]]
    namespace: str | None


async def find_access(environ: Mapping[str, str]) -> Access:
    """Look for a service account, then for a kubeconfig (``KUBECONFIG``, else ``~/.kube/config``).

    Raises:
        StartError: there is neither, or what is there cannot be used.
    """
    # To kubectl, a KUBECONFIG that is empty is one that is not set.
    paths = environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if _in_pod(environ):
        return await _from_service_account(environ)
    if not _any_file(paths):
        msg = (
            f"no Kubernetes credentials: this is no Pod (KUBERNETES_SERVICE_HOST and {SERVICE_ACCOUNT}/token), and "
            f"there is no kubeconfig at {paths}; set KUBECONFIG, or start without Kubernetes (cluster: memory)"
        )
        raise StartError(msg)
    return await _from_kubeconfig(paths)


def _in_pod(environ: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in environ and (SERVICE_ACCOUNT / "token").is_file()


def _any_file(paths: str) -> bool:
    """KUBECONFIG may name several files; kubectl and the library merge those that exist."""
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep))


async def _from_service_account(environ: Mapping[str, str]) -> Access:
    configuration = Configuration()
    token, certificate = str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt")
    loader = InClusterConfigLoader(token, certificate, environ=dict(environ))

    async def reload() -> None:
        with _usable(str(SERVICE_ACCOUNT)):
            loader.load_and_set(configuration)
            _complete(configuration)

    await reload()
    return Access(configuration, reload, _pod_namespace())


def _pod_namespace() -> str | None:
    """A token that somebody mounted by hand may have no namespace beside it."""
    file = SERVICE_ACCOUNT / "namespace"
    return file.read_text().strip() if file.is_file() else None


async def _from_kubeconfig(paths: str) -> Access:
    configuration = Configuration()
    namespace: str | None = None

    async def reload() -> None:
        nonlocal namespace
        with _usable(paths):
            loader = await load_kube_config(config_file=paths, client_configuration=configuration)
            _complete(configuration)
            context = loader.current_context
            namespace = None if context is None else context["context"].get("namespace") or None

    await reload()
    return Access(configuration, reload, namespace)


@contextmanager
def _usable(source: str) -> Iterator[None]:
    """Translate what the library raises; a hand-edited file makes it stumble over KeyError, TypeError and others."""
    try:
        yield
    except Exception as exc:
        msg = f"the Kubernetes credentials in {source} cannot be used: {str(exc) or type(exc).__name__}"
        raise StartError(msg) from exc


def _complete(configuration: Configuration) -> None:
    """What the library leaves out."""
    # Since Python 3.13 certificates are held to every word of RFC 5280, and the CAs of many clusters (EKS, microk8s)
    # have no key identifiers. kubectl and all Go clients accept them; chain, dates and host are still checked.
    configuration.disable_strict_ssl_verification = True
    url = URL(configuration.host or "")
    if url.scheme not in {"http", "https"} or url.host is None:
        msg = f"the server {configuration.host!r} is no http or https URL"
        raise ValueError(msg)
    # aiohttp would look for a proxy in the environment and for a password in ~/.netrc at each call, in two threads.
    if configuration.proxy is None and not proxy_bypass(url.host):
        configuration.proxy = getproxies().get(url.scheme)
