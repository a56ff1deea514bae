"""Where things are on the node's own network: a bridge in a network namespace, which no other process sees.

Servers have names in ``example.com``, as in the documents; the node's own name server knows these and no others.
"""

BRIDGE = "cni0"
BRIDGE_ADDRESS = "0a:58:0a:f4:00:01"
NETWORK = "10.244.0.0/24"
PODS = "10.244.0.20", "10.244.0.250"
"""The first and the last address that Pods get."""

GATEWAY = "10.244.0.1"
REGISTRY = "10.244.0.2"
GIT = "10.244.0.3"
ADDRESSES = GATEWAY, REGISTRY, GIT

NAMES = {"registry.example.com": REGISTRY, "git.example.com": GIT, "buildkitd.example.com": GATEWAY}
REGISTRY_NAME, GIT_NAME = "registry.example.com", "git.example.com"

HTTPS = 443
DNS = 53
BUILDKITD = 1234
"""Where the daemon listens that builds for Kaniko's stand-in."""

NODE = "localhost"
"""The node's name is the address by which the API server finds its kubelet."""
