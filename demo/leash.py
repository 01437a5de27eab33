"""
Runs a command that dies with the process that started it: `python -m demo.leash PARENT_PID COMMAND...`.

A demo that is killed outright can stop nobody. On Linux the kernel does it: a process may ask for a
signal when its parent dies, and the request outlives exec. It is made here, in a process of its own
that then becomes the command, because code between fork and exec of a larger program is not safe.
Elsewhere the command just runs, and a killed demo leaves its children behind.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Becomes the command. SIGKILL, not SIGTERM: nobody is left to see to it that a polite request is heard."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:
            sys.exit("the demo ended before its child began")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
