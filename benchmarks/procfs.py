"""
What the kernel says of a process: memory, processor time; and of this machine.

Linux only, as the figures are. A process is read together with its children, because a console script may be
a wrapper.
"""

import os
import platform
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """In MB of 2^20 bytes."""

    resident: float
    anonymous: float


def memory(pid: int) -> Memory:
    """Resident memory, and the part of it that no file backs."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident, anonymous = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return Memory(resident, anonymous)


def reset_peak(pid: int) -> None:
    """From now on `peak` counts."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> float:
    """The most resident memory since the start or reset_peak, in MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """Processor time of all its threads, in seconds, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def busy_s() -> float:
    """Seconds that all cores together have worked since the machine started."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """What a figure must be read with."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
