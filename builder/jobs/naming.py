"""Names that Kubernetes and registries accept, and that two builds can never share.

A text is used as it is where that is legal and unambiguous. Otherwise it is cut and *closed*: ``<cut>--<hash>``, with
a hash of the full identity. No text with a double dash in it is ever used as it is, so nobody can choose an id that
looks like another's closed name.
"""

import base64
import hashlib
import re

from builder.models import BuildRequest, Target

JOB_NAME_LIMIT = 63
"""Kubernetes copies a Job's name into a label of its Pods, and a label's value ends there."""
LABEL_LIMIT = 63
TAG_LIMIT = 128

_HASH_LENGTH = 20
"""In base32 digits: 100 bits, so that nobody finds two identities with one hash."""
_DERIVED = "kaniko-job-"
_PLAIN = re.compile(r"[a-z0-9]+")
_NOT_DNS = re.compile(r"[^a-z0-9]+")


def job_name(target: Target, wanted: str | None) -> str:
    """The Job's name, which is the target's lock: at most 63 characters of RFC 1123.

    ``wanted`` is the event's ``job_name``. One that starts like a derived name and is not this target's own is closed
    with a hash, so that nobody can take the name of somebody else's build.
    """
    derived = f"{_DERIVED}{target.third_party_id}-{target.parser_id}"
    if wanted is None or wanted == derived.lower():
        return _derived_name(target)
    if len(wanted) <= JOB_NAME_LIMIT and "--" not in wanted and not wanted.startswith(_DERIVED):
        return wanted
    return _closed(wanted, JOB_NAME_LIMIT, "job", *target, wanted)


def label_value(text: str) -> str:
    """An id as a label's value: at most 63 characters, letters, digits, ``-``, ``_`` and ``.``."""
    if len(text) <= LABEL_LIMIT and "--" not in text:
        return text
    return _closed(text, LABEL_LIMIT, "label", text)


def image_tag(request: BuildRequest) -> str:
    """The tag of one build's image: the same for every delivery of its event, and never another's."""
    target = request.target
    identity = (*target, request.event_source, request.event_id)
    return _closed(f"{target.third_party_id}-{target.parser_id}", TAG_LIMIT, "tag", *identity)


def cache_tag(target: Target) -> str:
    """The tag of a target's own layer cache: the same for all its builds, and never another's."""
    return _closed(f"{target.third_party_id}-{target.parser_id}", TAG_LIMIT, "cache", *target)


def _derived_name(target: Target) -> str:
    third_party, parser = target
    name = f"{_DERIVED}{third_party}-{parser}"
    # Only dashes that we put there: (a, b-c) and (a-b, c) would read the same.
    if len(name) <= JOB_NAME_LIMIT and _PLAIN.fullmatch(third_party) and _PLAIN.fullmatch(parser):
        return name
    # Both ids stay recognisable for a person: neither may crowd out the other.
    room = (JOB_NAME_LIMIT - len(_DERIVED) - 1 - 2 - _HASH_LENGTH) // 2
    readable = f"{_DERIVED}{_dns(third_party, room)}-{_dns(parser, room)}"
    return _closed(readable, JOB_NAME_LIMIT, "derived", third_party, parser)


def _dns(text: str, limit: int) -> str:
    return _NOT_DNS.sub("-", text.lower())[:limit].rstrip("-")


def _closed(text: str, limit: int, *identity: str) -> str:
    cut = text[: limit - _HASH_LENGTH - 2].rstrip("-._")
    return f"{cut}--{_digest(*identity)}"


def _digest(*parts: str) -> str:
    # Lengths in front keep ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.sha256(text.encode()).digest()[:15]  # more than the name has room for
    return base64.b32encode(digest).decode().lower()[:_HASH_LENGTH]
