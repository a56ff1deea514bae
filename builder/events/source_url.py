"""Where a build's source is, read from a URL that a stranger wrote (design: Names, The Job).

::

    https://github.com/notifi/parsers/0197…     repository notifi/parsers.git, sub-path 0197…   (two-level hosts)
    https://github.com/o/r/tree/v2/some/dir     repository o/r.git, branch v2, sub-path some/dir
    https://git.example.com/a/b/r.git/some/dir  repository a/b/r.git, sub-path some/dir         (elsewhere)
    https://git.example.com/a/b/r               repository a/b/r
    https://example.com/x.tar.gz                archive
    s3://bucket/x.tar.gz, gs://bucket/x.tar.gz  bucket

The URL must match one strict form; nothing is parsed leniently or repaired, for two parsers that differ (ours and
Kaniko's) are how such checks are got round. No message repeats the URL: it may hold a password.
"""

import re
from collections.abc import Collection

from builder.events.hosts import host_problem
from builder.models import Source, SourceKind

MAX_URL = 2048
MAX_PATH = 512

_SCHEMES = frozenset({"https", "s3", "gs"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([1-9][0-9]{0,4}))?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# In every part of a path: not . or .., and no hyphen first, or it may become an option of some program.
_PART = r"(?!-|\.\.?(?:/|\Z))"
# A %-escape may stand for anything but a control character and # % . / ? \ which would mean something once decoded.
_ESCAPE = r"%(?![01]|2[35EeFf]|3[Ff]|5[Cc]|7[Ff])[0-9A-Fa-f]{2}"
# ++ gives nothing back, so that no path takes exponential time.
_PATH = re.compile(rf"(?:/{_PART}(?:[A-Za-z0-9._~@+=,:-]++|{_ESCAPE})++)+/?")
_QUERY = re.compile(r"(?:\?[A-Za-z0-9._~@+=,:;!&%/?-]*)?")
ARCHIVES = (".tar.gz", ".tgz")
_HIGHEST_PORT = 65535

_INNER_PATH = re.compile(rf"{_PART}[A-Za-z0-9._@+=~-]+(?:/{_PART}[A-Za-z0-9._@+=~-]+)*")
_REF = re.compile(r"[A-Za-z0-9._/@+=,-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.IGNORECASE)


def parse_source(
    url: str,
    two_level_hosts: Collection[str],
    allowed_hosts: Collection[str] = (),
    ref: str | None = None,
    sub_path: str | None = None,
) -> Source:
    """The source behind a URL.

    ``two_level_hosts`` are those whose repositories have two path segments. ``allowed_hosts``, where there are any,
    are the only ones that may be used (of a bucket: its name), and may be inside. ``ref`` (for Git) and ``sub_path``
    are as ``parse_ref`` and ``parse_path`` give them and win over what the URL says.

    Raises:
        ValueError: what must be otherwise, in words for the sender.
    """
    scheme, authority, path, query = _split(url)
    host = _checked_host(scheme, authority, allowed_hosts)
    segments = _segments(path)
    location = f"{scheme}://{authority}"
    if scheme == "https" and path.endswith(ARCHIVES):
        return Source(SourceKind.ARCHIVE, f"{location}{path}{query}", None, sub_path)
    if query:
        msg = "must not have a ?query; only the https address of an archive may"
        raise ValueError(msg)
    if scheme != "https":
        return Source(SourceKind.BUCKET, f"{location}{path}", None, sub_path)
    repository, url_ref, inner = _two_levels(segments) if host in two_level_hosts else _any_levels(segments)
    url_path = parse_path("/".join(inner)) if inner else None
    return Source(
        SourceKind.GIT,
        f"{location}/{repository}",
        url_ref if ref is None else ref,
        url_path if sub_path is None else sub_path,
    )


def _split(url: str) -> tuple[str, str, str, str]:
    """Scheme and authority in lower case, path, and query with its question mark. Host and path are not checked yet."""
    match = _URL.fullmatch(url)
    if match is None:
        msg = "must be a URL, such as https://github.com/owner/repository"
        raise ValueError(msg)
    scheme, authority, path, query, fragment = match.groups()
    if scheme.lower() not in _SCHEMES:
        msg = "must begin with https://, s3:// or gs://"
    elif "@" in authority:
        msg = "must not hold a user name or password"
    elif fragment is not None:
        msg = "must not have a #fragment; the branch, tag or commit goes into data.parameters.ref"
    elif len(url) > MAX_URL:
        msg = f"must have at most {MAX_URL} characters"
    elif query is not None and not _QUERY.fullmatch(query):
        msg = "must have a ?query of letters, digits and . _ ~ @ + = , : ; ! & % / ? - only"
    else:
        return scheme.lower(), authority.lower(), path, "" if query is None else query
    raise ValueError(msg)


def _checked_host(scheme: str, authority: str, allowed_hosts: Collection[str]) -> str:
    """The host without its port, or the bucket's name, if anything may be fetched from there."""
    host, problem = _host(authority) if scheme == "https" else _bucket(authority)
    if allowed_hosts:
        problem = None if host in allowed_hosts else "must be of a host in the setting intake.allowedSourceHosts"
    if problem is not None:
        raise ValueError(problem)
    return host


def _host(authority: str) -> tuple[str, str | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match[2] is not None and int(match[2]) > _HIGHEST_PORT):
        msg = "must have a host, and a port from 1 to 65535 or none"
        raise ValueError(msg)
    return match[1], host_problem(match[1])


def _bucket(name: str) -> tuple[str, str | None]:
    return name, None if _BUCKET.fullmatch(name) else "must name a bucket: 3 to 222 lower-case characters"


def _segments(path: str) -> list[str]:
    """The parts of a path; one final slash is no part."""
    if not _PATH.fullmatch(path):
        msg = (
            "must have a path of letters, digits and . _ ~ @ + = , : -, without parts that are empty, . or .., or "
            "begin with a hyphen, and without %-escapes of control characters and # % . / ? \\"
        )
        raise ValueError(msg)
    return path[1:].removesuffix("/").split("/")


def _two_levels(segments: list[str]) -> tuple[str, str | None, list[str]]:
    """Repository, reference and what follows, where a repository is always owner/name."""
    if len(segments) < 2:  # noqa: PLR2004 -- owner, name
        msg = "must name an owner and a repository"
        raise ValueError(msg)
    owner, name, *inner = segments
    ref = None
    if len(inner) > 1 and inner[0] == "tree":
        ref, inner = parse_ref(inner[1]), inner[2:]
    return f"{owner}/{name.removesuffix('.git')}.git", ref, inner


def _any_levels(segments: list[str]) -> tuple[str, None, list[str]]:
    """Repository and what follows: all up to the first part that ends in ``.git``, or everything."""
    ends = (number for number, part in enumerate(segments, start=1) if part.endswith(".git"))
    end = next(ends, len(segments))
    return "/".join(segments[:end]), None, segments[end:]


def parse_ref(text: str) -> str:
    """What ``Source.ref`` holds for a branch, ``refs/…`` or full commit hash.

    Raises:
        ValueError: what must be otherwise, in words for the sender.
    """
    if _COMMIT.fullmatch(text):
        return text.lower()
    if not _is_ref(text):
        msg = (
            "must be a branch, refs/heads/…, refs/tags/… or a full commit hash, of letters, digits and . _ / @ + = , -"
        )
        raise ValueError(msg)
    return text if text.startswith("refs/") else f"refs/heads/{text}"


def _is_ref(text: str) -> bool:
    """git-check-ref-format's rules, on an alphabet in which nothing means anything to Kaniko or a terminal."""
    parts = text.split("/")
    return (
        len(text) <= MAX_PATH
        and _REF.fullmatch(text) is not None
        and not text.startswith("-")
        and not text.endswith(".")
        and ".." not in text
        and text != "@"
        and not any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
        and not (parts[0] == "refs" and len(parts) < 3)  # noqa: PLR2004 -- refs/<kind>/<name>
    )


def parse_path(text: str) -> str:
    """A path that stays inside the build's context, as it is.

    Raises:
        ValueError: what must be otherwise, in words for the sender. Kaniko itself follows ``..`` out of the context.
    """
    if not _INNER_PATH.fullmatch(text) or len(text) > MAX_PATH:
        msg = (
            f"must be a relative path of at most {MAX_PATH} letters, digits and . _ @ + = ~ - / "
            "without parts that are empty, . or .., or begin with a hyphen"
        )
        raise ValueError(msg)
    return text
