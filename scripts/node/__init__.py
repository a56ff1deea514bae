"""A real node on this machine: kubelet and containerd as plain processes, in namespaces of their own."""
