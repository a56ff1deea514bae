"""The configuration files of the node's programs. All that these write is below one folder, which goes with them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.places import BRIDGE, GATEWAY, HTTPS, NETWORK, PODS, REGISTRY, REGISTRY_NAME

PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = "/usr/lib/cni"
RUNC = "/usr/sbin/runc"

OWN_FILES = {
    "resolv.conf": "/etc/resolv.conf",
    "hosts": "/etc/hosts",
    "ca.crt": "/etc/ssl/certs/ca-certificates.crt",  # Git and registry are signed by our own authority
}
"""What the node's processes see instead of the machine's."""

OPEN, ENDED = "open", "ended"
"""Files of the keeper's: where the doors are, once they are open; and why the node has ended, if it has."""

# What the kubelet would set on the whole machine; it is shown these instead, and finds them set.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a node keeps its things, and its own numbers. A socket's path has 107 bytes at most: short folders."""

    folder: Path
    programs: Path
    api_port: int
    kubelet_port: int = 0
    cgroup: str = ""
    """The last two are the keeper's to say."""

    @property
    def socket(self) -> Path:
        """Containerd's."""
        return self.folder / "c.sock"

    def as_json(self) -> str:
        """For the command line of another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """The other way."""
        fields = json.loads(text)
        return cls(**fields | {name: Path(fields[name]) for name in ("folder", "programs")})


def write_all(layout: Layout) -> None:
    """Every file, in the node's folder, where certificates, accounts and kubeconfigs are already."""
    folder = layout.folder
    certificates = folder / f"certs.d/{REGISTRY_NAME}"
    for name in ("cni", certificates):
        (folder / name).mkdir(parents=True)
    (certificates / "hosts.toml").write_text(
        f'server = "https://{REGISTRY_NAME}"\n[host."https://{REGISTRY_NAME}"]\n  ca = "{folder}/ca.crt"\n'
    )
    (folder / "containerd.toml").write_text(_containerd(layout))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(layout)))
    (folder / "cni/10-bridge.conflist").write_text(json.dumps(_pod_network(layout)))
    (folder / "registry.json").write_text(json.dumps(_registry(folder)))  # JSON is YAML
    (folder / "resolv.conf").write_text(f"nameserver {GATEWAY}\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    (folder / "buildkitd.toml").write_text(_buildkitd(layout))
    for path, value in SYSCTLS.items():
        file = folder / "sysctl" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")


def _containerd(layout: Layout) -> str:
    """Debian's containerd 1.6. Without CAP_SYS_RESOURCE nobody may be made harder to kill: restrict_oom_score_adj."""
    folder, cri = layout.folder, "plugins.'io.containerd.grpc.v1.cri'"
    return f"""
version = 2
root = '{folder}/containerd'
state = '{folder}/containerd-state'
[grpc]
  address = '{layout.socket}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{folder}/opt'
[{cri}]
  sandbox_image = '{PAUSE_IMAGE}'
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [{cri}.containerd]
    snapshotter = 'overlayfs'
  [{cri}.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [{cri}.containerd.runtimes.runc.options]
      BinaryName = '{RUNC}'
      Root = '{folder}/runc'
  [{cri}.cni]
    bin_dir = '{CNI_PLUGINS}'
    conf_dir = '{folder}/cni'
  [{cri}.registry]
    config_path = '{folder}/certs.d'
"""


def _kubelet(layout: Layout) -> dict[str, Any]:
    """One that leaves the machine alone: no iptables, no limits on parents, no scores of its own."""
    folder = layout.folder
    nothing = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "protectKernelDefaults": True,
        "failSwapOn": False,
        "address": "127.0.0.1",
        "port": layout.kubelet_port,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "podLogsDir": f"{folder}/pod-logs",
        "volumePluginDir": f"{folder}/volume-plugins",
        "resolvConf": f"{folder}/resolv.conf",
        "clusterDNS": [GATEWAY],
        "clusterDomain": "cluster.local",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{folder}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "imageGCHighThresholdPercent": 100,
        "volumeStatsAggPeriod": "5s",  # by default a minute passes before a full volume is seen
        "evictionHard": dict.fromkeys(nothing, "0%"),
        # Twenty times a second instead of five: two builds side by side are many calls.
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    }


def _pod_network(layout: Layout) -> dict[str, Any]:
    first, last = PODS
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": NETWORK, "rangeStart": first, "rangeEnd": last, "gateway": GATEWAY}]],
        "dataDir": f"{layout.folder}/addresses",
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _buildkitd(layout: Layout) -> str:
    """The daemon beside the Pods. Otherwise its steps would have control groups beside the node's."""
    return f"""
[worker.oci]
  defaultCgroupParent = '{layout.cgroup}/buildkit'
[registry.'{REGISTRY_NAME}']
  ca = ['{layout.folder}/ca.crt']
[registry.'docker.io']
  mirrors = ['{REGISTRY_NAME}/mirror']
"""


def _registry(folder: Path) -> dict[str, Any]:
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/registry"}, "delete": {"enabled": True}},
        "auth": {"htpasswd": {"realm": "registry", "path": f"{folder}/htpasswd"}},
        "http": {
            "addr": f"{REGISTRY}:{HTTPS}",
            "tls": {"certificate": f"{folder}/server.crt", "key": f"{folder}/server.key"},
        },
    }
