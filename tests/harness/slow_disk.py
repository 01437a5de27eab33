"""
A disk that takes its time: each fsync and fdatasync of a process lasts so much longer, as on a worn SD card.

    environment = slow_disk(directory, 0.2)      # for subprocess.Popen(env=...)

A few lines of C that are loaded before the C library. Only what waits for the disk waits: reads, and writes into the
page cache, are as fast as ever.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void wait_(void) {
    struct timespec left = {DELAY_NS / 1000000000L, DELAY_NS % 1000000000L};
    nanosleep(&left, 0);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_();
    return next(fd);
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_();
    return next(fd);
}
"""


def why_not() -> str:
    """What is missing for it; "" for nothing."""
    return "" if shutil.which("cc") else "no C compiler (cc) is there to make the disk slow with"


def slow_disk(directory: Path, delay_s: float) -> Mapping[str, str]:
    """What a process's environment needs so that each of its syncs takes so long."""
    library = directory / "slow_disk.so"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        f"-DDELAY_NS={round(delay_s * 1e9)}L",
        "-x",
        "c",
        "-",
        "-o",
        str(library),
        "-ldl",
    ]
    subprocess.run(command, input=SOURCE.encode(), check=True)
    return {"LD_PRELOAD": str(library)}
