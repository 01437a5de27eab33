"""
The same push and acknowledgement in C: what sockets and TLS allow here and now, beside which the hub is measured.

Built on demand from benchmarks/climit, once for each version of the sources, into a cache directory. Where there is no
C compiler or no OpenSSL headers the figures stand alone, and the table says why.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from componentbase import pki

SOURCES = Path(__file__).resolve().parent / "climit"
PROGRAMS = ("wsserve", "wsload")
WITHIN_S = 120.0


class Limit(NamedTuple):
    """What the C loop did in one run."""

    per_core: float
    """Pushes with their acknowledgements per second of the serving core."""
    round_p50_ms: float
    """From the first push of a round to its last acknowledgement."""


class Missing(Exception):
    """It cannot be built here; says why."""


def build() -> Path:
    """The directory of the programs and of the certificate that they serve TLS with. Raises Missing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing("there is no C compiler")
    digest = hashlib.sha256(b"".join((SOURCES / f"{name}.c").read_bytes() for name in PROGRAMS)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead-bench" / digest
    cache.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        if not (cache / name).exists():
            made = cache / f"{name}.{os.getpid()}"
            command = [compiler, "-O2", "-w", "-o", str(made), str(SOURCES / f"{name}.c"), "-lssl", "-lcrypto"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.splitlines()
                raise Missing(next((line for line in lines if "error" in line), "it does not compile"))
            made.rename(cache / name)
    _make_certificate(cache / "tls")
    return cache


def _make_certificate(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    made = pki.issue_server_cert(pki.create_ca("benchmark", 2), ["127.0.0.1"], 2)
    (directory / "cert.pem").write_bytes(made.cert_pem)
    (directory / "key.pem").write_bytes(made.key_pem)


def run(programs: Path, nodes: int, pushes: int, *, tls: bool) -> Limit:
    """About a second for 60,000 pushes."""
    command = [str(programs / "wsserve"), str(nodes), str(pushes), "1" if tls else "0"]
    done = subprocess.run(command, cwd=programs, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, f"wsserve ended with code {done.returncode}: {done.stderr}"
    told = json.loads(done.stdout.splitlines()[-1])
    return Limit(1e6 / told["srv_cpu_us"], told["round_p50_ms"])
