"""Which hosts a build may fetch its source from: none that only means something inside.

A URL in an event is a stranger's wish that *our* network open a connection (server-side request forgery). What a name
resolves to cannot be known here, so the cluster's NetworkPolicy has the last word; this is the first one, with a clear
answer to the sender. Wherever programs differ in how they read an address, the spelling itself is refused.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# The end of every name in the public DNS. A namespace of Kubernetes, which resolves there too, often has a hyphen.
_TOP_LEVEL = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]{1,59}")
# A last label like this makes the host an IPv4 address, to inet_aton as to browsers:
# https://url.spec.whatwg.org/#ends-in-a-number-checker
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# RFC 6761, RFC 6762, RFC 8375, RFC 9476, ICANN's "internal", Kubernetes, and what routers and offices use.
_INSIDE_NAMES = frozenset({
    "alt", "arpa", "corp", "default", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain",
    "localhost", "onion", "private", "svc", "test",
})  # fmt: skip

# https://www.iana.org/assignments/iana-ipv4-special-registry
_INSIDE_V4 = (
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),  # private
    IPv4Network("100.64.0.0/10"),  # shared by carriers (CGNAT); a cloud's metadata at .100.200
    IPv4Network("127.0.0.0/8"),  # loopback
    IPv4Network("168.63.129.16/32"),  # a public number, but a cloud's own agent inside
    IPv4Network("169.254.0.0/16"),  # link-local: metadata
    IPv4Network("172.16.0.0/12"),  # private
    IPv4Network("192.0.0.0/24"),  # protocol assignments; a cloud's metadata at .192
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),  # private
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
)

# Every public IPv6 address is in 2000::/3; nothing local, IPv4-mapped, translated (NAT64) or multicast is.
_PUBLIC_V6 = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry
_INSIDE_V6 = (
    IPv6Network("2001::/23"),  # Teredo, which wraps IPv4, and other protocols
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, which wraps IPv4
    IPv6Network("3fff::/20"),  # documentation
)

_NOT_PUBLIC = "must not be an address of a private, local, shared or reserved network"


@lru_cache(maxsize=1024)
def host_problem(host: str) -> str | None:
    """Why nothing may be fetched from this host; None if it may.

    ``host`` is as it stands in a URL, in lower case and without port: a name, an IPv4 address, or an IPv6 address in
    brackets.
    """
    if host.startswith("["):
        return _v6_problem(host)
    last = host.removesuffix(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        return _v4_problem(host)
    if not _NAME.fullmatch(host) or len(host) > 253:  # noqa: PLR2004 -- RFC 1035, section 2.3.4
        return "must be a host name of letters, digits, dots and hyphens (punycode for others), without a final dot"
    if last == host:
        return "must be a full host name: a single word only means something inside"
    if last in _INSIDE_NAMES or not _TOP_LEVEL.fullmatch(last):
        return "must be a public host name: this one only means something inside"
    return None


def _v4_problem(host: str) -> str | None:
    try:
        address = IPv4Address(host)  # takes four decimal numbers without leading zeros, and nothing else
    except AddressValueError:
        return "must write an IP address as four decimal numbers"
    return _NOT_PUBLIC if any(address in network for network in _INSIDE_V4) else None


def _v6_problem(host: str) -> str | None:
    try:
        address = IPv6Address(host.removeprefix("[").removesuffix("]"))
    except AddressValueError:
        address = None
    if address is None or not host.endswith("]") or address.scope_id is not None:
        return "must write an IPv6 address in brackets, without a zone"
    public = address in _PUBLIC_V6 and not any(address in network for network in _INSIDE_V6)
    return None if public else _NOT_PUBLIC
