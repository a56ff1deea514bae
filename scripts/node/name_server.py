"""The node's name server: it knows the names of ``places``, and that there are no others."""

import socket
import struct

from node.places import DNS, GATEWAY, NAMES

_HEADER = struct.Struct("!HHHHHH")
_ANSWER = struct.Struct("!HHHIH4s")
_A = 1
_ANSWERED, _NO_SUCH_NAME = 0x8580, 0x8583
_POINTER_TO_QUESTION = 0xC00C
_TIME_TO_LIVE = 60


def answer(query: bytes) -> bytes:
    """What RFC 1035 wants to hear: the address, nothing for other kinds of records, or that the name does not exist."""
    identity = _HEADER.unpack_from(query)[0]
    name, end = _question(query)
    question = query[_HEADER.size : end]
    kind = int.from_bytes(question[-4:-2], "big")
    address = NAMES.get(name)
    records = b""
    if address is not None and kind == _A:
        raw = socket.inet_aton(address)
        records = _ANSWER.pack(_POINTER_TO_QUESTION, _A, 1, _TIME_TO_LIVE, len(raw), raw)
    flags = _NO_SUCH_NAME if address is None else _ANSWERED
    return _HEADER.pack(identity, flags, 1, bool(records), 0, 0) + question + records


def _question(query: bytes) -> tuple[str, int]:
    """The name that is asked for, in lower case, and where the question ends."""
    labels, at = [], _HEADER.size
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("ascii", "replace").lower())
        at += 1 + size
    return ".".join(labels), at + 5


def main() -> None:
    """Answer for ever."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((GATEWAY, DNS))
        while True:
            query, sender = server.recvfrom(512)
            if len(query) > _HEADER.size:
                server.sendto(answer(query), sender)


if __name__ == "__main__":
    main()
