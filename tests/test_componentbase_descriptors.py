"""The soft limit on open files goes up to the hard one, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import resource
from componentbase.descriptors import allow_many_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256))
assert allow_many_files() == 256
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_the_hard_one_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["256", "256"]
