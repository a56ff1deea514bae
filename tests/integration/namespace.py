"""A namespace of the real API server, and what an admin does and sees there."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import ControlPlane

from builder.models import Manifest


@dataclass(frozen=True, slots=True)
class Namespace:
    """One test's own place on a control plane."""

    plane: ControlPlane
    name: str

    @property
    def environ(self) -> dict[str, str]:
        """The way in as the admin."""
        return {"KUBECONFIG": str(self.plane.kubeconfig)}

    async def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl in this namespace; what it prints."""
        return await asyncio.to_thread(self.plane.kubectl, f"--namespace={self.name}", *args, input=stdin)

    async def create(self, *manifests: Manifest) -> None:
        """Make these objects."""
        await self.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests)))

    async def read(self, kind: str, *selectors: str) -> list[Manifest]:
        """All objects of a kind."""
        items: list[Manifest] = json.loads(await self.kubectl("get", kind, "-o=json", *selectors))["items"]
        return items

    async def jobs(self) -> dict[str, Manifest]:
        """The Jobs by name."""
        return {job["metadata"]["name"]: job for job in await self.read("jobs")}

    async def events(self, reason: str) -> list[str]:
        """What the cluster says of this kind, such as ``FailedCreate``."""
        return [event["message"] for event in await self.read("events", f"--field-selector=reason={reason}")]

    async def create_strictly(self, job: Manifest) -> Manifest:
        """Have the API server check a Job to the last field, without making it; the Job as it would be.

        Raises:
            ControlPlaneError: in the API server's words; an unknown or doubled field is enough.
        """
        path = f"/apis/batch/v1/namespaces/{self.name}/jobs?dryRun=All&fieldValidation=Strict"
        made: Manifest = json.loads(await self.kubectl("create", f"--raw={path}", "-f", "-", stdin=json.dumps(job)))
        return made

    async def service_account(self, *, may: Iterable[str] = ()) -> str:
        """The token of a new service account that may do these verbs to Jobs, and nothing else."""
        await self.kubectl("create", "serviceaccount", "builder")
        if verbs := ",".join(may):
            await self.kubectl("create", "role", "builder", f"--verb={verbs}", "--resource=jobs.batch")
            account = f"--serviceaccount={self.name}:builder"
            await self.kubectl("create", "rolebinding", "builder", "--role=builder", account)
        return (await self.kubectl("create", "token", "builder")).strip()

    def kubeconfig(
        self, path: Path, *, token: str | None = None, token_file: Path | None = None, server: str | None = None
    ) -> Path:
        """A kubeconfig for somebody else, or by another way, written to ``path``."""
        config: dict[str, Any] = json.loads(self.plane.kubeconfig.read_text())
        if token is not None:
            config["users"][0]["user"] = {"token": token}
        if token_file is not None:
            config["users"][0]["user"] = {"tokenFile": str(token_file)}
        if server is not None:
            config["clusters"][0]["cluster"]["server"] = server
        path.write_text(json.dumps(config))
        return path
