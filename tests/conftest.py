"""
What tests of several packages share: free ports and the real tools.

A missing tool fails the test and says how to get it. Skipping would let a whole promise go untested in silence.
"""

import gc
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.harness import forkserver
from tests.harness import mosquitto as mosquitto_harness

# Bytecode is kept also where the environment says otherwise: without it every session rewrites every test again, once
# per worker, and each of the hundreds of processes that tests start compiles all that it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Each worker collects thousands of tests, and nothing of what that makes is ever garbage: a quarter of the time.
gc.disable()
# kubectl is over before Go's garbage collector and scheduler pay: a third of the processor time of a short command.
GO = {"GOGC": "off", "GOMAXPROCS": "1"}
os.environ.update(GO)

# A machine that is busy with something else is no failure of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
"""Where scripts/setup-tools puts what it fetched."""

KUBECTLS = ("kubectl-debian", "kubectl-current")
SBIN = "/usr/sbin:/usr/local/sbin"
"""Where a broker lies that is not on a user's PATH."""


def find_tool(name: str) -> Path | None:
    """The tool from .tools, else from PATH."""
    kept = TOOLS / name
    if kept.exists():
        return kept
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    return Path(found) if found else None


def need_tool(name: str) -> Path:
    """The tool, or the test fails with what to run."""
    found = find_tool(name)
    if found is None:
        pytest.fail(f"{name} is missing: run scripts/setup-tools, as `make test` does", pytrace=False)
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Tests fork what they start; a soak, which also tells of memory, starts it truly."""
    forkserver.allowed = "not soak" in config.option.markexpr


def pytest_collection_finish() -> None:
    """From here on there is garbage; what was collected and imported is not looked at for it again."""
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kubectl` runs with each kubectl: Debian's, a current one, or failing both the one on PATH."""
    if "kubectl" in metafunc.fixturenames:
        names = [name for name in KUBECTLS if (TOOLS / name).exists()]
        metafunc.parametrize("kubectl", names or ["kubectl"], indirect=True)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command's main() sets the root logger up, on streams that its test takes away again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_told_of_where_it_was_made() -> Iterator[None]:
    """
    What a file leaves unclosed fails the file, and not whichever test the collector interrupts later.

    What lives on is not looked at again: late in a worker a full collection takes most of a second, and a test that
    counts how long a loop is held would count that.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def kubectl(request: pytest.FixtureRequest) -> Path:
    """One kubectl binary."""
    return need_tool(str(request.param))


@pytest.fixture
def mosquitto() -> Path:
    """The mosquitto broker's binary."""
    return need_tool("mosquitto")


@pytest.fixture
def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago. Bind port 0 instead wherever the server can tell its port."""
    return mosquitto_harness.free_port()
