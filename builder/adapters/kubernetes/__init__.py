"""The real cluster.

Importing it costs 70 MB and half a second, for kubernetes-asyncio loads its thousand model classes: import it only
where a real cluster is wanted.
"""

from builder.adapters.kubernetes.cluster import KubernetesCluster

__all__ = ["KubernetesCluster"]
