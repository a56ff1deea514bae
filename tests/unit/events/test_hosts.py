"""Which hosts may be fetched from: every spelling of an inside address that some program understands is refused."""

import pytest

from builder.events.hosts import host_problem

PUBLIC_ADDRESS = "must not be an address of a private, local, shared or reserved network"
FOUR_NUMBERS = "must write an IP address as four decimal numbers"
SIX = "must write an IPv6 address in brackets, without a zone"
NAME = "must be a host name of letters, digits, dots and hyphens (punycode for others), without a final dot"
ONE_WORD = "must be a full host name: a single word only means something inside"
INSIDE = "must be a public host name: this one only means something inside"


@pytest.mark.parametrize(
    "host",
    [
        "github.com",
        "git.example.co.uk",
        "xn--mller-kva.example.xn--p1ai",
        "1.2.3.example.com",
        "0x7f.example.com",
        "a-b.c--d.dev",
        f"{'a' * 63}.com",
        "8.8.8.8",
        "140.82.121.4",
        "172.32.0.1",
        "100.128.0.1",
        "[2606:50c0:8000::153]",
        "[2a00:1450:4001:82a::200e]",
    ],
)
def test_public_hosts(host: str) -> None:
    """What the whole internet understands in the same way."""
    assert host_problem(host) is None


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        # IPv4, as it should be written
        ("127.0.0.1", PUBLIC_ADDRESS),
        ("127.255.255.254", PUBLIC_ADDRESS),
        ("0.0.0.0", PUBLIC_ADDRESS),  # noqa: S104 -- nothing is bound
        ("10.96.0.1", PUBLIC_ADDRESS),
        ("172.16.0.1", PUBLIC_ADDRESS),
        ("172.31.255.255", PUBLIC_ADDRESS),
        ("192.168.1.1", PUBLIC_ADDRESS),
        ("169.254.169.254", PUBLIC_ADDRESS),
        ("169.254.170.2", PUBLIC_ADDRESS),
        ("100.64.0.1", PUBLIC_ADDRESS),
        ("100.100.100.200", PUBLIC_ADDRESS),
        ("192.0.0.192", PUBLIC_ADDRESS),
        ("168.63.129.16", PUBLIC_ADDRESS),
        ("192.0.2.1", PUBLIC_ADDRESS),
        ("198.18.0.1", PUBLIC_ADDRESS),
        ("224.0.0.1", PUBLIC_ADDRESS),
        ("240.0.0.1", PUBLIC_ADDRESS),
        ("255.255.255.255", PUBLIC_ADDRESS),
        # IPv4, as inet_aton and browsers read it too
        ("2130706433", FOUR_NUMBERS),
        ("017700000001", FOUR_NUMBERS),
        ("0x7f000001", FOUR_NUMBERS),
        ("0x7f.1", FOUR_NUMBERS),
        ("127.1", FOUR_NUMBERS),
        ("127.0.1", FOUR_NUMBERS),
        ("0", FOUR_NUMBERS),
        ("0x", FOUR_NUMBERS),
        ("0177.0.0.1", FOUR_NUMBERS),
        ("127.0.0.01", FOUR_NUMBERS),
        ("0x7f.0x0.0x0.0x1", FOUR_NUMBERS),
        ("127.0.0.0x1", FOUR_NUMBERS),
        ("2852039166", FOUR_NUMBERS),
        ("169.254.43518", FOUR_NUMBERS),
        ("425.510.425.510", FOUR_NUMBERS),
        ("127.0.0.1.", FOUR_NUMBERS),
        ("8.8.8.8.", FOUR_NUMBERS),
        ("1.2.3.4.5", FOUR_NUMBERS),
        ("example.1", FOUR_NUMBERS),
        # IPv4, with characters that become digits and dots (IDNA): full-width, circled, ideographic
        ("\uff11\uff12\uff17.0.0.1", FOUR_NUMBERS),
        ("127。0。0。1", NAME),
        ("①②⑦.0.0.1", FOUR_NUMBERS),
        ("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", NAME),
        ("127.0.0.¹", NAME),
        # percent-encoded
        ("127%2e0%2e0%2e1", NAME),
        ("%31%32%37.0.0.1", FOUR_NUMBERS),
        ("local%68ost", NAME),
        # IPv6
        ("[::1]", PUBLIC_ADDRESS),
        ("[::]", PUBLIC_ADDRESS),
        ("[0:0:0:0:0:0:0:1]", PUBLIC_ADDRESS),
        ("[::ffff:127.0.0.1]", PUBLIC_ADDRESS),
        ("[::ffff:7f00:1]", PUBLIC_ADDRESS),
        ("[::ffff:0:127.0.0.1]", PUBLIC_ADDRESS),
        ("[::ffff:169.254.169.254]", PUBLIC_ADDRESS),
        ("[::127.0.0.1]", PUBLIC_ADDRESS),
        ("[64:ff9b::127.0.0.1]", PUBLIC_ADDRESS),
        ("[64:ff9b:1::7f00:1]", PUBLIC_ADDRESS),
        ("[2002:7f00:1::]", PUBLIC_ADDRESS),
        ("[2001:0:7f00:1::]", PUBLIC_ADDRESS),
        ("[2001:db8::1]", PUBLIC_ADDRESS),
        ("[3fff::1]", PUBLIC_ADDRESS),
        ("[fe80::1]", PUBLIC_ADDRESS),
        ("[fec0::1]", PUBLIC_ADDRESS),
        ("[fc00::1]", PUBLIC_ADDRESS),
        ("[fd00:ec2::254]", PUBLIC_ADDRESS),
        ("[ff02::1]", PUBLIC_ADDRESS),
        ("[100::1]", PUBLIC_ADDRESS),
        ("[fe80::1%eth0]", SIX),
        ("[fe80::1%25eth0]", SIX),
        ("[2606:50c0:8000::153%1]", SIX),
        ("[127.0.0.1]", SIX),
        ("[::1", SIX),
        ("[]", SIX),
        ("[[::1]]", SIX),
        ("[v1.x]", SIX),
        # names that only mean something inside
        ("localhost", ONE_WORD),
        ("kubernetes", ONE_WORD),
        ("metadata", ONE_WORD),
        ("localhost.", NAME),
        ("localhost.localdomain", INSIDE),
        ("foo.localhost", INSIDE),
        ("printer.local", INSIDE),
        ("metadata.google.internal", INSIDE),
        ("metadata.google.internal.", NAME),
        ("kubernetes.default", INSIDE),
        ("kubernetes.default.svc", INSIDE),
        ("kubernetes.default.svc.cluster.local", INSIDE),
        ("coredns.kube-system", INSIDE),
        ("rabbitmq.rabbitmq-dev", INSIDE),
        ("db.team1", INSIDE),
        ("router.home.arpa", INSIDE),
        ("1.0.0.127.in-addr.arpa", INSIDE),
        ("nas.lan", INSIDE),
        ("wiki.corp", INSIDE),
        ("x.onion", INSIDE),
        ("x.test", INSIDE),
        ("x.y", INSIDE),
        # no names at all
        ("", NAME),
        (".", NAME),
        ("github.com.", NAME),
        (".github.com", NAME),
        ("github..com", NAME),
        ("-x.com", NAME),
        ("x-.com", NAME),
        ("git_hub.com", NAME),
        ("git hub.com", NAME),
        ("github.com\n", NAME),
        ("github.com\0.local", NAME),
        (f"{'a' * 64}.com", NAME),
        (".".join(["a" * 60] * 5), NAME),
        ("::1", NAME),
    ],
)
def test_inside_hosts(host: str, problem: str) -> None:
    """Loopback, private, metadata and their disguises; where programs differ about a spelling, nobody may use it."""
    assert host_problem(host) == problem
