"""Where a build's source is: what a URL means, and all that it must not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.events.source_url import MAX_URL, parse_path, parse_ref, parse_source
from builder.models import Source, SourceKind

TWO_LEVEL_HOSTS = ("github.com", "bitbucket.org", "codeberg.org")
COMMIT = "0123456789abcdef0123456789ABCDEF01234567"


def git(location: str, ref: str | None = None, sub_path: str | None = None) -> Source:
    return Source(SourceKind.GIT, location, ref, sub_path)


def parse(url: str, *allowed_hosts: str) -> Source:
    return parse_source(url, two_level_hosts=TWO_LEVEL_HOSTS, allowed_hosts=allowed_hosts)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        # 004's own example, which is no repository as it stands
        (
            "https://github.com/notifi/parsers/0197ad6c10b973b2b854a0e652155b7e",
            git("https://github.com/notifi/parsers.git", None, "0197ad6c10b973b2b854a0e652155b7e"),
        ),
        # two levels
        ("https://github.com/o/r", git("https://github.com/o/r.git")),
        ("https://github.com/o/r/", git("https://github.com/o/r.git")),
        ("https://github.com/o/r.git", git("https://github.com/o/r.git")),
        ("https://github.com/o/r.git/a/b", git("https://github.com/o/r.git", None, "a/b")),
        ("https://codeberg.org/o/r/a", git("https://codeberg.org/o/r.git", None, "a")),
        ("https://github.com/o/r/tree/v2", git("https://github.com/o/r.git", "refs/heads/v2")),
        ("https://github.com/o/r/tree/v2/a/b", git("https://github.com/o/r.git", "refs/heads/v2", "a/b")),
        (f"https://github.com/o/r/tree/{COMMIT}/a", git("https://github.com/o/r.git", COMMIT.lower(), "a")),
        ("https://github.com/o/r/tree", git("https://github.com/o/r.git", None, "tree")),
        ("https://github.com/o/r/a/tree/b", git("https://github.com/o/r.git", None, "a/tree/b")),
        ("HTTPS://GitHub.COM/Owner/Repo", git("https://github.com/Owner/Repo.git")),
        ("https://github.com:443/o/r", git("https://github.com:443/o/r.git")),
        # elsewhere
        ("https://git.example.com/a/b/c", git("https://git.example.com/a/b/c")),
        ("https://git.example.com/a/b/c/", git("https://git.example.com/a/b/c")),
        ("https://git.example.com/a/b/r.git/c/d", git("https://git.example.com/a/b/r.git", None, "c/d")),
        ("https://git.example.com:8443/r.git", git("https://git.example.com:8443/r.git")),
        ("https://git.example.com/~me/My%20r%C3%A4po", git("https://git.example.com/~me/My%20r%C3%A4po")),
        ("https://git.example.com/a/tree/b", git("https://git.example.com/a/tree/b")),
        ("https://8.8.8.8/r", git("https://8.8.8.8/r")),
        # archives and buckets
        ("https://example.com/x.tar.gz", Source(SourceKind.ARCHIVE, "https://example.com/x.tar.gz")),
        (
            "https://example.com/a/x.tgz?sig=a%2Fb&v=1",
            Source(SourceKind.ARCHIVE, "https://example.com/a/x.tgz?sig=a%2Fb&v=1"),
        ),
        ("https://github.com/o/r/x.tar.gz", Source(SourceKind.ARCHIVE, "https://github.com/o/r/x.tar.gz")),
        ("s3://bucket/a/x.tar.gz", Source(SourceKind.BUCKET, "s3://bucket/a/x.tar.gz")),
        ("gs://my.bucket_1/x.tar.gz", Source(SourceKind.BUCKET, "gs://my.bucket_1/x.tar.gz")),
    ],
)
def test_what_a_url_means(url: str, source: Source) -> None:
    """Repository, reference and sub-path (E7)."""
    assert parse(url) == source


def test_fields_win_over_the_url() -> None:
    """E7: each of them by itself."""
    url = "https://github.com/o/r/tree/v2/a"
    repository = "https://github.com/o/r.git"
    hosts = TWO_LEVEL_HOSTS
    assert parse_source(url, two_level_hosts=hosts, ref="refs/tags/v3") == git(repository, "refs/tags/v3", "a")
    assert parse_source(url, two_level_hosts=hosts, sub_path="b") == git(repository, "refs/heads/v2", "b")


SCHEME = "must begin with https://, s3:// or gs://"
URL = "must be a URL, such as https://github.com/owner/repository"
USER = "must not hold a user name or password"
FRAGMENT = "must not have a #fragment; the branch, tag or commit goes into data.parameters.ref"
LENGTH = "must have at most 2048 characters"
NAME = "must be a host name of letters, digits, dots and hyphens (punycode for others), without a final dot"
FOUR_NUMBERS = "must write an IP address as four decimal numbers"
HOST = "must have a host, and a port from 1 to 65535 or none"
BUCKET = "must name a bucket: 3 to 222 lower-case characters"
QUERY = "must not have a ?query; only the https address of an archive may"
QUERY_TEXT = "must have a ?query of letters, digits and . _ ~ @ + = , : ; ! & % / ? - only"
PATH = (
    "must have a path of letters, digits and . _ ~ @ + = , : -, without parts that are empty, . or .., or "
    "begin with a hyphen, and without %-escapes of control characters and # % . / ? \\"
)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        # other schemes, or none
        ("http://github.com/o/r", SCHEME),
        ("git://github.com/o/r", SCHEME),
        ("ssh://github.com/o/r", SCHEME),
        ("ftp://github.com/o/r", SCHEME),
        ("file:///etc/passwd", SCHEME),
        ("dir:///workspace", SCHEME),
        ("tar://stdin", SCHEME),
        ("gopher://example.com/", SCHEME),
        ("git+ssh://github.com/o/r", SCHEME),
        ("", URL),
        ("github.com/o/r", URL),
        ("//github.com/o/r", URL),
        ("https:github.com/o/r", URL),
        ("https:/github.com/o/r", URL),
        ("git@github.com:o/r.git", URL),
        ("javascript:alert(1)", URL),
        (" https://github.com/o/r", URL),
        ("\thttps://github.com/o/r", URL),
        ("--git=branch=x", URL),
        ("--context=https://github.com/o/r", URL),
        ("/etc/passwd", URL),
        # user-info
        ("https://user:secret@github.com/o/r", USER),
        ("https://token@github.com/o/r", USER),
        ("https://github.com@127.0.0.1/o/r", USER),
        ("https://@github.com/o/r", USER),
        ("https://a@b@github.com/o/r", USER),
        ("s3://key:secret@bucket/x.tar.gz", USER),
        # fragments
        ("https://github.com/o/r#refs/heads/x", FRAGMENT),
        ("https://github.com/o/r#", FRAGMENT),
        ("https://example.com/x.tar.gz#x", FRAGMENT),
        # characters
        ("https://github.com/o/r\n", PATH),
        ("https://github.com/o/r\r\nHost: x", PATH),
        ("https://github.com/o/\0r", PATH),
        ("https://github.com/o/r x", PATH),
        ("https://github.com/o/r --insecure", PATH),
        ("https://github.com\\@127.0.0.1/o/r", USER),
        ("https://127.0.0.1\\.github.com/o/r", NAME),
        ("https://github.com/o\\r", PATH),
        ("https://github.com/o/$(GIT_TOKEN)", PATH),
        ("https://github.com/o/`id`", PATH),
        ('https://github.com/o/"r"', PATH),
        ("https://github.com/o/r|x", PATH),
        ("https://github.com/o/rä", PATH),
        ("https://gïthub.com/o/r", NAME),
        ("https://127。0。0。1/o/r", NAME),
        ("https://github.com/o/r\u202e", PATH),
        ("https://github.com/" + "x" * MAX_URL, LENGTH),
        # hosts and ports: test_hosts has the addresses
        ("https://127.0.0.1/o/r", "must not be an address of a private, local, shared or reserved network"),
        ("https://[::1]:443/o/r", "must not be an address of a private, local, shared or reserved network"),
        ("https://2130706433/o/r", FOUR_NUMBERS),
        ("https://LOCALHOST/o/r", "must be a full host name: a single word only means something inside"),
        ("https://a.SVC/o/r", "must be a public host name: this one only means something inside"),
        ("https:///o/r", NAME),
        ("https://github.com\n/o/r", NAME),
        ("https://github.com /o/r", NAME),
        ("https://github.com:443 /o/r", HOST),
        ("https://github.com:/o/r", HOST),
        ("https://github.com:0/o/r", HOST),
        ("https://github.com:65536/o/r", HOST),
        ("https://github.com:0443/o/r", HOST),
        ("https://github.com:x/o/r", HOST),
        ("https://github.com:1:2/o/r", HOST),
        ("https://[::1/o/r", HOST),
        ("https://[::1]x/o/r", HOST),
        # queries
        ("https://github.com/o/r?ref=x", QUERY),
        ("https://github.com/o/r?x.tar.gz", QUERY),
        ("https://git.example.com/r.git?x", QUERY),
        ("s3://bucket/x.tar.gz?versionId=1", QUERY),
        ("https://example.com/x.tar.gz?a b", QUERY_TEXT),
        ("https://example.com/x.tar.gz?$(X)\n", QUERY_TEXT),
        # paths
        ("https://github.com", PATH),
        ("https://github.com/", PATH),
        ("https://github.com//o/r", PATH),
        ("https://github.com/o//r", PATH),
        ("https://github.com/o/r//", PATH),
        ("https://github.com/o/../r", PATH),
        ("https://github.com/o/r/..", PATH),
        ("https://github.com/o/r/./x", PATH),
        ("https://github.com/o/%2e%2e/r", PATH),
        ("https://github.com/o/%2E./r", PATH),
        ("https://github.com/o%2fr/x", PATH),
        ("https://github.com/o%5Cr/x", PATH),
        ("https://github.com/o/r%00", PATH),
        ("https://github.com/o/r%0a", PATH),
        ("https://github.com/o/r%7F", PATH),
        ("https://github.com/o/r%23main", PATH),
        ("https://github.com/o/r%3Fx", PATH),
        ("https://github.com/o/%252e%252e/r", PATH),
        ("https://github.com/o/r%", PATH),
        ("https://github.com/o/r%zz", PATH),
        ("https://github.com/o/--upload-pack=x", PATH),
        ("https://github.com/-o/r", PATH),
        ("https://gitlab.com/group/project/-/tree/main", PATH),
        ("https://github.com/o/r;x", PATH),
        ("https://example.com/a/../x.tar.gz", PATH),
        ("https://github.com/o", "must name an owner and a repository"),
        # buckets
        ("s3://bucket", PATH),
        ("s3://bucket/", PATH),
        ("s3://bucket/a/../x.tar.gz", PATH),
        ("s3:///x.tar.gz", BUCKET),
        ("gs://bucket:443/x.tar.gz", BUCKET),
        ("s3://[::1]/x.tar.gz", BUCKET),
        ("s3://-x-/x.tar.gz", BUCKET),
    ],
)
def test_what_a_url_must_not_be(url: str, problem: str) -> None:
    """Each with the words that its sender gets; none of them repeats the URL."""
    with pytest.raises(ValueError, match="must") as caught:
        parse(url)
    assert str(caught.value) == problem


def test_a_password_is_never_repeated() -> None:
    """Problems go into answers, logs and dead letters."""
    with pytest.raises(ValueError, match="must") as caught:
        parse("https://user:hunter2@github.com/o/r")
    assert "hunter2" not in str(caught.value)


class TestAllowedHosts:
    """``intake.allowedSourceHosts``: exactly these, and they may be inside."""

    @pytest.mark.parametrize(
        "url", ["https://git.internal/r.git", "https://GIT.internal:3000/r.git", "https://git.internal/x.tar.gz"]
    )
    def test_admits_an_inside_host_by_name(self, url: str) -> None:
        """The administrator knows what it means."""
        assert parse(url, "git.internal").location.startswith("https://git.internal")

    @pytest.mark.parametrize("host", ["gitea", "10.0.0.7"])
    def test_admits_single_words_and_addresses(self, host: str) -> None:
        """Whatever the setting can hold."""
        assert parse(f"https://{host}/r.git", host) == git(f"https://{host}/r.git")

    def test_admits_a_bucket_by_its_name(self) -> None:
        """The bucket's name stands where a host does."""
        assert parse("s3://sources/x.tar.gz", "sources").kind is SourceKind.BUCKET

    @pytest.mark.parametrize(
        "url",
        [
            "https://github.com/o/r",
            "https://x.git.internal/r.git",
            "https://git.internal.evil.com/r.git",
            "https://git.internal./r.git",
            "https://10.0.0.07/r.git",
            "s3://bucket/x.tar.gz",
        ],
    )
    def test_refuses_all_others(self, url: str) -> None:
        """A list narrows."""
        with pytest.raises(ValueError, match=r"must be of a host in the setting intake\.allowedSourceHosts"):
            parse(url, "git.internal", "10.0.0.7")

    @pytest.mark.parametrize("url", ["http://git.internal/r", "https://u@git.internal/r", "https://git.internal/../r"])
    def test_nothing_else_is_let_through(self, url: str) -> None:
        """Only the host is excused."""
        with pytest.raises(ValueError, match="must"):
            parse(url, "git.internal")


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("main", "refs/heads/main"),
        ("feature/x-1", "refs/heads/feature/x-1"),
        ("v1.2", "refs/heads/v1.2"),
        ("tags/v1", "refs/heads/tags/v1"),
        ("a@b", "refs/heads/a@b"),
        ("refs/heads/main", "refs/heads/main"),
        ("refs/tags/v1", "refs/tags/v1"),
        ("refs/pull/7/head", "refs/pull/7/head"),
        (COMMIT, COMMIT.lower()),
        (COMMIT.lower(), COMMIT.lower()),
        ("a" * 64, "a" * 64),
        ("a" * 41, f"refs/heads/{'a' * 41}"),
    ],
)
def test_refs(text: str, ref: str) -> None:
    """A branch, a full ref, or a full commit hash."""
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "", "-x", "--upload-pack=x", "@", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a\0", "a\n",
        "a\x7f", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "/a", "a/", "a//b", "a@{1}", "a#b", "$(id)", "ä", "refs",
        "refs/", "refs/heads", "refs/heads/", "x" * 513,
    ],
)  # fmt: skip
def test_what_is_no_ref(text: str) -> None:
    """git-check-ref-format, options of Git, and what Kaniko or the kubelet would read otherwise."""
    with pytest.raises(ValueError, match="must be a branch"):
        parse_ref(text)


@pytest.mark.parametrize("text", ["a", "a/b.c/D_e", "...", "@scope/x+y=z~1", "a/b-", ".docker/Dockerfile"])
def test_paths(text: str) -> None:
    """Relative and inside."""
    assert parse_path(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/..", "a/../b", "a\\..\\b", "-a", "a/-b",
        "--x", "a b", "a\n", "a\0", "a%2e", "$(X)", "a#b", "a:b", "http://x/y", "ä", "..\n", "x" * 513,
    ],
)  # fmt: skip
def test_what_is_no_path(text: str) -> None:
    """Kaniko follows ``..`` out of the context and takes absolute paths and URLs for a Dockerfile."""
    with pytest.raises(ValueError, match="must be a relative path"):
        parse_path(text)


@given(
    st.text()
    | st.from_regex(r"(https|s3|gs)://[a-z0-9.:@%\[\]-]{0,20}/[A-Za-z0-9./%?#-]{0,30}", fullmatch=True)
    | st.text(alphabet="ghm/.-%2e5c:@[]#?").map("https://github.com/".__add__)
)
def test_whatever_passes_is_safe(url: str) -> None:
    """No text but a ValueError or a source that stays what it says, whoever reads it next."""
    try:
        source = parse(url)
    except ValueError:
        return
    assert source.location.isascii()
    assert source.location.isprintable()
    assert "@" not in source.location.split("/")[2]
    assert not set(source.location) & set("#$\\ \"'`<>")
    assert ".." not in source.location.split("?")[0].split("/")
    if source.sub_path is not None:
        assert parse_path(source.sub_path) == source.sub_path
