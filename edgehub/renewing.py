"""
Getting the next certificate, as a process of its own: `python -m edgehub.renewing DIR NODE HOST:PORT [--now]`.

Making a key takes `cryptography`, which would cost a running edgecore 9 MB for something it does once in eight months.
So it starts this, and this ends. What it leaves is DIR/.renewing, complete and known to work, or not yet; the running
process puts that in place (edgehub.renewal), for it holds the directory and nobody else changes what is in use.

    1  the hub shows its CAs; where they are those that are known, the same signs, and it is not time yet, that was it
    2  a new key, on the disk before the hub hears of it
    3  POST /v1/renew with the present certificate, also where that has lapsed
    4  the answer, on the disk
    5  POST /v1/renewed with the new certificate, trusting the new CAs: it works, and the hub knows that it is here
    6  .renewing/ready

Killed anywhere, the next run goes on from what is there: with the same key, so that a hub that has signed for it and
counts it as ours is not left with a key that nobody has.

Invariants
    a private key leaves this directory never, and no directory that others can enter
    what is in use is not touched here

Blocking on purpose: it is a command.
"""

import contextlib
import json
import shutil
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

from apimachinery.keys import Node
from componentbase import certificates
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError
from componentbase.files import fsync_dir, write_atomic
from componentbase.tls import TlsMin
from edgehub.join import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    PKI,
    SERVING_FILE,
    SERVING_KEY_FILE,
    check_identity,
    make_keys,
    requests_for,
)
from edgehub.joinhub import Answer, Busy, Hub, Pending, Refused
from edgehub.lifetimes import renew_at
from edgehub.renewal import READY, STAGED, Outcome, State, replaces

TIMEOUT_S = 10.0  # for each answer
ASKED_WITH = "asked-with"
"""In STAGED: the fingerprint of the certificate that is renewed."""


def prepare(
    home: Path, node: Node, cloud: Endpoint, *, at_once: bool = False, tls_min: TlsMin = TlsMin.TLS_1_3
) -> bool:
    """
    Have the next certificate in DIR/.renewing where it is time, or the CAs have changed; whether it is there.

    at_once: also where it is not. Raises JoinError and FilesError.
    """
    staged, used = home / STAGED, home / PKI
    if (staged / READY).exists():
        return True
    hub = Hub(cloud, TIMEOUT_S, named="cloud.join", tls_min=tls_min)
    known = (used / CA_FILE).read_bytes()
    shown = hub.shown_cas(known.decode())
    certificate = (used / CERTIFICATE_FILE).read_bytes()
    is_due = datetime.now(UTC) >= renew_at(certificate, certificates.validity(certificate))
    # Once the hub has heard that we have the next certificate, this one counts no more: what was begun is finished.
    is_begun = _text(staged / ASKED_WITH) == _asked_with(certificate)
    # Their order counts: the first is the one that signs now, or signed what is here.
    if (
        not at_once
        and not is_due
        and not is_begun
        and certificates.fingerprints(known) == certificates.fingerprints(shown)
    ):
        return False
    if not is_begun:
        shutil.rmtree(staged, ignore_errors=True)  # this machine has joined anew since
    if not _has_answer(hub, staged):
        _ask(hub, home, node, cloud)
        hub.confirm(_context(hub, staged / PKI))
    write_atomic(staged / READY, replaces(certificate, (staged / PKI / CERTIFICATE_FILE).read_bytes()))
    return True


def _has_answer(hub: Hub, staged: Path) -> bool:
    """Whether an earlier run got its certificate and did not get to hear that the hub knows; now it does."""
    try:
        context = _context(hub, staged / PKI)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    try:
        hub.confirm(context)
    except Busy:
        raise
    except Refused:  # it was given another one since
        return False
    return True


def _ask(hub: Hub, home: Path, node: Node, cloud: Endpoint) -> None:
    staged = home / STAGED
    folder = staged / PKI
    if not _has_keys(folder, node, cloud):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(mode=0o700)
        make_keys(folder, node)
        write_atomic(staged / ASKED_WITH, _asked_with((home / PKI / CERTIFICATE_FILE).read_bytes()))
        fsync_dir(home)
    answer = hub.renew(_context(hub, home / PKI), requests_for(folder, node, cloud))
    _write(folder, answer)
    check_identity(folder, hub)


def _asked_with(certificate: bytes) -> bytes:
    return certificates.fingerprints(certificate)[0].encode()


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _has_keys(folder: Path, node: Node, cloud: Endpoint) -> bool:
    from componentbase import pki

    try:
        requests_for(folder, node, cloud)
    except (OSError, ValueError, pki.PkiError):
        return False
    return True


def _write(folder: Path, answer: Answer) -> None:
    write_atomic(folder / CA_FILE, answer.ca.encode(), 0o644)
    if answer.serving:
        write_atomic(folder / SERVING_FILE, answer.serving.encode(), 0o644)
    else:
        (folder / SERVING_KEY_FILE).unlink()
    write_atomic(folder / CERTIFICATE_FILE, answer.certificate.encode(), 0o644)


def _context(hub: Hub, folder: Path) -> ssl.SSLContext:
    """To ask with what is in this directory. Raises OSError or ValueError where that is not whole."""
    context = hub.trusting((folder / CA_FILE).read_text())
    context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    return context


def main(arguments: list[str]) -> int:
    """Prints an Outcome as JSON; what is not expected to go wrong comes out as it is."""
    home, node, cloud, tls_min, *more = arguments
    try:
        is_ready = prepare(
            Path(home), Node(node), Endpoint.parse(cloud), at_once="--now" in more, tls_min=TlsMin(tls_min)
        )
        outcome = Outcome(State.READY if is_ready else State.CURRENT)
    except Pending as exc:
        outcome = Outcome(State.FAILED, f"the next certificate is asked for: {exc}", exc.wait_s)
    except Busy as exc:
        outcome = Outcome(State.FAILED, str(exc), exc.wait_s)
    except Refused as exc:
        outcome = Outcome(State.REFUSED, str(exc))
    except (CommandError, OSError, ValueError) as exc:
        outcome = Outcome(State.FAILED, str(exc))
    with contextlib.suppress(BrokenPipeError):  # edgecore has ended meanwhile
        print(json.dumps({"state": outcome.state.value, "text": outcome.text, "wait_s": outcome.wait_s}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
