"""
Commands of ours as processes that are forked from one which has imported the program, instead of importing it anew.

An import of cloudcore, edgecore or the apiserver takes half a second to a second of a processor, and tests start
them hundreds of times. A forked process is what `python -m` starts in all a test can see: its own pid, arguments in
/proc, environment, directory and standard streams; it is killed, it ends and it is waited for as any other. Its parent
is the template. What a process is before the program's first line is for tests that start it themselves.

Invariants
    a template is forked only while it has one thread; it opens nothing, so that nobody shares anything with it
    what an interpreter obeys only when it starts (PYTHON*) is the template's too, else there is no fork
    a template ends with the process it serves, and its processes with it
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

ROOT = Path(__file__).resolve().parent.parent.parent
ARGUMENTS_ROOM = 4096  # bytes for what /proc/PID/cmdline shows
MAX_REQUEST_BYTES = 1 << 17
NUMBER = struct.Struct("<i")

PRELOADS: Mapping[str, Sequence[str]] = {
    "cloudcore": (
        "anyio._backends._asyncio",
        "cloudhub.apiclient",
        "cloudhub.replica",
        "encodings.idna",
        "httpcore2",
        "uvloop",
    ),
    "edgecore": (
        "apiserver.http",
        "componentbase.pki",
        "devicetwin.broker.server",
        "devicetwin.bus",
        "devicetwin.service",
        "edgecore.compose",
        "edgehub.connector",
        "edgehub.join",
        "edgehub.nodeinfo",
        "encodings.idna",
        "metamanager.api",
        "metamanager.opening",
    ),
    "apiserver.dev": ("sqlalchemy.dialects.sqlite",),
    "mappers.runtime": ("encodings.idna", "mappers.simulated"),
    "tests.conformance.clients.run": tuple(
        f"tests.conformance.clients.{name}client" for name in ("asyncio", "kr8s", "kubectl", "lightkube", "official")
    ),
}
"""The programs that are forked, and what they import only once they run."""

allowed = False
"""Whether anything is: tests say so, benchmarks measure the memory of processes that share none with a template."""


class Running(Protocol):
    """What subprocess.Popen and Forked have in common."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def start(
    module: str,
    arguments: Sequence[str],
    *,
    out: IO[bytes],
    error: IO[bytes],
    environment: Mapping[str, str],
    directory: Path = ROOT,
    stdin: IO[bytes] | None = None,
) -> Running:
    """`python -m MODULE ARGUMENTS` with these streams and nothing else open; without stdin it reads nothing."""
    settings = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    with contextlib.ExitStack() as stack:
        given = stdin or stack.enter_context(Path(os.devnull).open("rb"))
        if allowed and module in PRELOADS and settings.get("PYTHONPATH", str(ROOT)) == str(ROOT):
            return _template(module, settings).fork(arguments, [given, out, error], environment, directory)
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=given,
            stdout=out,
            stderr=error,
            env=environment,
            cwd=directory,
        )


def run(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    stdin: str = "",
    directory: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """As start(), to its end. Raises subprocess.TimeoutExpired when that takes longer."""
    with contextlib.ExitStack() as stack:
        # Files in memory rather than pipes: nobody has to read while the process runs.
        given, out, error = (
            stack.enter_context(os.fdopen(os.memfd_create(name), "w+b")) for name in ("in", "out", "err")
        )
        given.write(stdin.encode())
        given.seek(0)
        process = start(
            module, arguments, stdin=given, out=out, error=error, environment=environment, directory=directory
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess([module, *arguments], code, *texts)


class Forked:
    """One process of a template."""

    def __init__(self, arguments: Sequence[str], status: io.FileIO) -> None:
        self._arguments = arguments
        self._status = status
        """What the template tells: the pid, later how it ended."""
        self._lock = threading.Lock()
        self.pid: int = NUMBER.unpack(status.read(NUMBER.size) or NUMBER.pack(0))[0]
        self.returncode: int | None = None
        assert self.pid, "the template ended"

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._status, selectors.EVENT_READ)
                    if not selector.select(timeout):
                        raise subprocess.TimeoutExpired(list(self._arguments), timeout or 0.0)
                told = self._status.read(NUMBER.size)
                # A template that is gone has killed it.
                self.returncode = NUMBER.unpack(told)[0] if told else -signal.SIGKILL
                self._status.close()
            return self.returncode

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Template:
    """A process that has imported a program, seen from the one that wants it forked."""

    def __init__(self, module: str, settings: Mapping[str, str]) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, module, str(theirs.fileno()), "-" * ARGUMENTS_ROOM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**others, **settings},
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )

    def end(self) -> None:
        """And all that it has forked."""
        self._control.close()
        self._process.wait()

    def fork(
        self,
        arguments: Sequence[str],
        streams: Sequence[IO[bytes]],
        environment: Mapping[str, str],
        directory: Path,
    ) -> Forked:
        request = json.dumps([list(arguments), dict(environment), str(directory)]).encode()
        assert len(request) < MAX_REQUEST_BYTES, "its environment is too large"
        ours, theirs = os.pipe()
        status = io.FileIO(ours)
        try:
            socket.send_fds(self._control, [request], [*(each.fileno() for each in streams), theirs])
        finally:
            os.close(theirs)
        return Forked(arguments, status)


_templates: dict[tuple[str, frozenset[tuple[str, str]]], Template] = {}
_lock = threading.Lock()


def _template(module: str, settings: Mapping[str, str]) -> Template:
    key = module, frozenset(settings.items())
    with _lock:
        if key not in _templates:
            _templates[key] = Template(module, settings)
            atexit.register(_templates[key].end)
        return _templates[key]


# ---- the template


def _serve(module: str, control: socket.socket) -> None:
    """Fork what is asked for until nobody asks. Returns in a forked process, which then is the program's."""
    children: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    _tell_end(key.data, *children.pop(key.data), selector)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
                if not message:
                    for pid in children:
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
                    os._exit(0)
                assert len(os.listdir("/proc/self/task")) == 1, f"{module} has started a thread when it was imported"
                *streams, status = descriptors
                pid = os.fork()
                if not pid:
                    selector.close()
                    for descriptor in (status, *(each for pair in children.values() for each in pair)):
                        os.close(descriptor)
                    _become(module, streams, *json.loads(message))
                    return
                for stream in streams:
                    os.close(stream)
                os.write(status, NUMBER.pack(pid))
                children[pid] = os.pidfd_open(pid), status
                selector.register(children[pid][0], selectors.EVENT_READ, pid)


def _tell_end(pid: int, descriptor: int, status: int, selector: selectors.BaseSelector) -> None:
    selector.unregister(descriptor)
    os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(status, NUMBER.pack(code))
    os.close(status)


def _become(
    module: str, streams: Sequence[int], arguments: Sequence[str], environment: Mapping[str, str], directory: str
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = directory
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]  # a supervisor starts its workers so
    _show_arguments(sys.orig_argv)


def _show_arguments(words: Sequence[str]) -> None:
    """In /proc/PID/cmdline, over what the template was started with, as setproctitle(3) does it."""
    first, last = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    text = b"".join(os.fsencode(word) + b"\0" for word in words)[: last - first - 1]
    ctypes.memmove(first, text.ljust(last - first, b"\0"), last - first)


def main() -> None:
    module, descriptor = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; those that are forked decide for themselves
    program = importlib.import_module(module)
    if hasattr(program, "__path__"):  # of a package, `python -m` runs this
        program = importlib.import_module(f"{module}.__main__")
    for name in PRELOADS[module]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that no collection of theirs copies these pages
    with socket.socket(fileno=descriptor) as control:
        _serve(module, control)
    sys.exit(program.main())


if __name__ == "__main__":
    main()
