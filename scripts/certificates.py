"""An authority that nobody knows, and certificates of its, made by openssl: for throw-away servers on loopback."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from child_programs import ProgramError

_KEY = "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"
_AUTHORITY = "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"


def make_authority(folder: Path) -> None:
    """Put ``ca.crt`` and ``ca.key`` into the folder."""
    openssl(
        "req", "-x509", *_KEY, "-subj", "/CN=throw-away authority", "-keyout", "ca.key", "-out", "ca.crt", at=folder
    )


def make_certificate(
    folder: Path,
    name: str,
    usage: Literal["serverAuth", "clientAuth"],
    names: Sequence[str],
    subject: str | None = None,
) -> None:
    """Put ``<name>.crt`` and ``<name>.key`` into the authority's folder, for names such as ``DNS:localhost``."""
    extensions = folder / f"{name}.ext"
    alternatives = f"subjectAltName = {', '.join(names)}\n" if names else ""
    extensions.write_text(f"{alternatives}extendedKeyUsage = {usage}\n")
    request = "-subj", f"/CN={name}" if subject is None else subject, "-keyout", f"{name}.key", "-out", f"{name}.csr"
    openssl("req", *_KEY, *request, at=folder)
    signed = "-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", extensions.name
    openssl("x509", "-req", *_AUTHORITY, *signed, at=folder)


def openssl(*args: str, at: Path) -> None:
    """Run one command of openssl in a folder; ProgramError has its complaint."""
    done = subprocess.run(["openssl", *args], cwd=at, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = f"openssl {args[0]}: {done.stderr.strip()}"
        raise ProgramError(message)
