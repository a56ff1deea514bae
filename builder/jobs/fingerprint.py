"""A hash of what a request would build."""

import hashlib
import json

from builder.models import BuildRequest

VERSION = "v1"
"""Goes up when what is hashed changes: fingerprints of two versions are never equal."""


def fingerprint(request: BuildRequest) -> str:
    """``v1:`` and 40 hex digits; equal for two requests that would build the same from the same address."""
    source = request.source
    parts = [
        *request.target,
        [source.kind, source.location, source.ref, source.sub_path],
        request.dockerfile,
        request.build_type,
        request.runtime,
        request.build_timeout,
        sorted(request.environment.items()),
    ]
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return f"{VERSION}:{hashlib.sha256(text.encode()).hexdigest()[:40]}"
