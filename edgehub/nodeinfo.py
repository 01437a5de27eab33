"""
What an edge says of its machine: the part of a Node's status that `kubectl get nodes -o wide` shows.

Read once at start from the kernel and /etc/os-release; nothing here is measured over time.
"""

import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from apimachinery.objects import JSON, canonical

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""Kubernetes uses Go's names for architectures, in labels and in status.nodeInfo.architecture."""


def node_info(version: str, address: str) -> bytes:
    """
    The value of a report's "nodeInfo" field, as canonical JSON, so that it can be compared with the last one.

    version: shown in kubectl's VERSION column. address: the InternalIP, "" when it is not known.
    """
    machine = platform.machine()
    addresses: list[JSON] = [{"type": "Hostname", "address": socket.gethostname()}]
    if address:
        addresses.insert(0, {"type": "InternalIP", "address": address})
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{pages * page_bytes // 1024}Ki", "pods": "110"}
    return canonical(
        {
            "nodeInfo": {
                "architecture": _ARCHITECTURES.get(machine, machine),
                "operatingSystem": platform.system().lower(),
                "kernelVersion": platform.release(),
                "osImage": os_image(),
                "machineID": _line(Path("/etc/machine-id")),
                "systemUUID": _line(Path("/sys/class/dmi/id/product_uuid")),
                "bootID": _line(Path("/proc/sys/kernel/random/boot_id")),
                "kubeletVersion": version,
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "",
            },
            "addresses": addresses,
            "capacity": capacity,
        }
    )


def os_image(release: Mapping[str, str] | None = None) -> str:
    """PRETTY_NAME of os-release, "" where there is no such file."""
    if release is None:
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {}
    return release.get("PRETTY_NAME", "")


def outgoing_address(host: str, port: int) -> str:
    """The address this machine would use to reach the hub; "" when there is no way. Sends nothing."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
