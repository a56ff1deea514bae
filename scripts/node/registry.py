"""The node's registry as an admin sees it from this machine, by the distribution specification's HTTP API."""

import hashlib
import http.client
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from node.images import Image

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ACCEPT = f"{_MANIFEST}, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """One registry; close it, or use it as a context manager."""

    def __init__(self, url: str, ca_file: Path, account: tuple[str, str]) -> None:
        context = ssl.create_default_context(cafile=str(ca_file))
        self._http = httpx.Client(base_url=url, verify=context, auth=account, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def digest(self, repository: str, reference: str) -> str | None:
        """The digest of what stands under a tag; None if nothing does."""
        answer = self._http.head(f"/v2/{repository}/manifests/{reference}", headers={"Accept": _ACCEPT})
        if answer.status_code == http.client.NOT_FOUND:
            return None
        return str(answer.raise_for_status().headers["Docker-Content-Digest"])

    def manifest(self, repository: str, reference: str) -> Any:
        """What stands under a tag or a digest."""
        answer = self._http.get(f"/v2/{repository}/manifests/{reference}", headers={"Accept": _ACCEPT})
        return answer.raise_for_status().json()

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository; none if it does not exist."""
        answer = self._http.get(f"/v2/{repository}/tags/list")
        if answer.status_code == http.client.NOT_FOUND:
            return []
        return sorted(answer.raise_for_status().json()["tags"] or [])

    def push(self, image: Image, repository: str, tag: str) -> None:
        """Put an image there, under another name than its own."""
        parts = image.parts()
        layer, config = self._upload(repository, parts.layer), self._upload(repository, parts.config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG} | config,
            "layers": [{"mediaType": _LAYER} | layer],
        }
        put = self._http.put(
            f"/v2/{repository}/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": _MANIFEST}
        )
        put.raise_for_status()

    def _upload(self, repository: str, blob: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = self._http.post(f"/v2/{repository}/blobs/uploads/").raise_for_status().headers["Location"]
        put = httpx.URL(place).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream"}
        self._http.put(put, content=blob, headers=headers).raise_for_status()
        return {"digest": digest, "size": len(blob)}
