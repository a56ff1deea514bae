"""The embedded cluster: Jobs under Kubernetes' own rules, in memory, with builds that are only played.

It ships in the product, so that the whole service runs on a laptop with nothing installed. ``tests/contract`` holds it
and a real API server to the same promises.
"""

from builder.adapters.memory_cluster.cluster import MemoryCluster

__all__ = ["MemoryCluster"]
