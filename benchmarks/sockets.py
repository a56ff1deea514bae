"""Where the peers listen."""

import socket


def bound_socket() -> socket.socket:
    """A listening socket on a free port of loopback; its URL is printed, for whoever started us waits for it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    return listener
