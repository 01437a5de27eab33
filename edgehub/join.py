"""
The edge's side of joining: from a token to an identity on disk, or to one clear sentence and nothing on disk.

The private key is made here and never leaves. It is on the disk before the hub hears of it, so that whoever loses
its power, its line or its room on the disk between question and answer asks again with the same key, and a token
for a single use still counts. Only then does a join that failed leave something behind: DIR/.joining, with this key.

Invariants
    the token goes to nobody but the hub it came from (edgehub.joinhub), and is written nowhere
    either DIR holds pki/ and the configuration, complete, or both are as they were before
    what others put into pki/ is there afterwards, too
    the configuration is written last: where it is, the rest is

Blocking on purpose: it is a command.
"""

import contextlib
import logging
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apimachinery.keys import Node
from apimachinery.nodenames import problem
from componentbase.endpoints import Endpoint
from componentbase.files import Unusable, fsync_dir, lock_dir, open_private_dir, write_atomic
from edgehub.joinhub import (
    SUBJECT,
    AlreadyJoined,
    Answer,
    Busy,
    Hub,
    JoinError,
    NotInTime,
    NotReachable,
    Pending,
    Unanswered,
    Unsigned,
    pin_of,
)

logger = logging.getLogger(__name__)

CONFIGURATION = "edgecore.yaml"
PKI = "pki"
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "edge.crt", "edge.key"
SERVING_FILE, SERVING_KEY_FILE = "api.crt", "api.key"
IDENTITY_FILES = (KEY_FILE, SERVING_KEY_FILE, CERTIFICATE_FILE, SERVING_FILE, CA_FILE)
"""All that is ours in PKI; people keep other files there."""
STORE = "edge.db"
STAGED = ".joining"
ASKED_AS = "asked-as"
"""In STAGED: the node and the CA that the keys beside it were made for."""
FORMER = "former"
"""In STAGED: the identity that is replaced, until the new one is in place."""

PATIENCE_S = 120.0  # for a hub that is busy; whoever waits longer should know why
AWAY_S = 3600.0  # for a hub that goes away, or its name, while somebody decides: it is being upgraded, say
AGAIN_S, AGAIN_MOST_S = 1.0, 30.0
ANSWERS_LOST = 3  # a line that loses as many in a row is better looked at

_ORGANIZATION = "system:nodes"


class Joined(NamedTuple):
    """What a node is after joining; what its configuration is made from."""

    node: Node
    link: Endpoint
    """Where the link is: the host that was joined through, the port the hub named."""
    link_path: str
    data_dir: Path


def join(
    cloud: Endpoint,
    token: str,
    node: Node,
    data_dir: Path,
    configuration: Callable[[Joined], str],
    *,
    replace: bool = False,
    timeout_s: float = 10.0,
    patience_s: float = PATIENCE_S,
) -> Joined:
    """
    Make this directory the home of `node`: DIR/pki with key, certificate and CA, and DIR/edgecore.yaml.

    configuration: gives the text of DIR/edgecore.yaml. replace: take the place of what joined here before.
    timeout_s: for each answer. patience_s: for a hub that says to come back later.
    Raises JoinError and componentbase.files.FilesError; then nothing has changed but for DIR/.joining.
    """
    pin = pin_of(token)
    check_name(node)
    with _home(data_dir, node, replace=replace) as home:
        hub = Hub(cloud, timeout_s)
        ca_pem = hub.fetch_ca(pin)
        with _staged(home, node, pin) as staged:
            request = {"node": node, "token": token, **requests_for(staged.folder / PKI, node, cloud)}
            answer = _patiently(lambda: hub.join(ca_pem, request), patience_s, staged)
            joined = Joined(node, Endpoint(cloud.host, answer.link_port), answer.link_path, home)
            _install(home, staged.folder, answer, configuration(joined), hub)
    return joined


def _patiently(ask: Callable[[], Answer], patience_s: float, staged: "_Staged") -> Answer:
    """
    Ask until there is an answer that says something; the same request each time.

    A person who is to decide has all the time there is: whoever does not want to wait for that stops the command, and
    the same command goes on. A hub that was there and is away is waited for, as one that is busy; one that never was
    is not.
    """
    by = time.monotonic() + patience_s
    lost, away, told = 0, 0, ""
    while True:
        try:
            return ask()
        except Pending as exc:
            wait_s, lost, away = exc.wait_s, 0, 0
            staged.is_asked = True
            by = time.monotonic() + AWAY_S
            if str(exc) != told:
                told = str(exc)
                logger.warning(
                    "the hub waits, and so does this command; stopped, it goes on when it is run again",
                    extra={"for": told},
                )
        except Busy as exc:
            wait_s, staged.is_asked = exc.wait_s, True
            if time.monotonic() + wait_s > by:
                raise
            logger.warning("the hub says to come back later", extra={"in_s": wait_s, "reason": str(exc)})
        except (NotReachable, NotInTime) as exc:
            staged.is_asked = staged.is_asked or isinstance(exc, Unanswered)
            if not staged.is_asked:
                raise
            lost += isinstance(exc, Unanswered)
            wait_s = min(AGAIN_MOST_S, AGAIN_S * 2**away)
            away += 1
            if (lost == ANSWERS_LOST and not told) or time.monotonic() + wait_s > by:
                raise Unanswered(f"{exc}. Run the same command again: the key that was sent is kept for it") from exc
            logger.warning("no answer, asking again", extra={"in_s": wait_s, "reason": str(exc)})
        time.sleep(wait_s)


def asked_before(home: Path, node: Node, pin: str) -> str:
    """The signing request that an earlier join sent from here and that is not answered yet; "" where there is none."""
    from componentbase import pki

    if not _is_staged(home / STAGED, node, pin):
        return ""
    key_pem = (home / STAGED / PKI / KEY_FILE).read_bytes()
    return pki.make_csr(key_pem, SUBJECT + node, _ORGANIZATION).decode()


def requests_for(pki_dir: Path, node: Node, cloud: Endpoint) -> dict[str, object]:
    """The signing requests for the keys that are in this directory. Raises OSError, and PkiError for what is no key."""
    # Here and not at the top: importing it costs a running edgecore 9 MB, and it never joins.
    from componentbase import pki

    csr, serving_csr = (
        pki.make_csr((pki_dir / name).read_bytes(), SUBJECT + node, _ORGANIZATION).decode()
        for name in (KEY_FILE, SERVING_KEY_FILE)
    )
    return {"csr": csr, "serving": {"csr": serving_csr, "addresses": _addresses(cloud)}}


def _addresses(cloud: Endpoint) -> list[str]:
    """This machine's address towards the hub, under which others may reach its API; none where that cannot be told."""
    from edgehub.nodeinfo import outgoing_address

    found = outgoing_address(cloud.host, cloud.port)
    return [found] if found else []


def check_name(node: str) -> None:
    """Raises JoinError where no node can have it: before a token is shown to anybody."""
    if reason := problem(node):
        raise JoinError(reason)


# ---- the directory


@contextlib.contextmanager
def _home(data_dir: Path, node: Node, *, replace: bool) -> Iterator[Path]:
    """The directory, ours alone while the block lasts; gone again when it was new and a failing block keeps no key."""
    is_new = not data_dir.exists()
    try:
        home = open_private_dir(data_dir)
        with lock_dir(home):
            _settle(home)
            check_vacant(home, node, replace=replace)
            yield home
    except BaseException:
        if is_new and not (data_dir / STAGED).exists():
            shutil.rmtree(data_dir, ignore_errors=True)
        raise


def check_vacant(home: Path, node: Node, *, replace: bool) -> None:
    """Raises AlreadyJoined where another identity is there, or another node's data."""
    taken = [name for name in (CONFIGURATION, PKI) if (home / name).exists()]
    if not taken:
        return
    if not replace:
        raise AlreadyJoined(
            f"{home} has joined already (it holds {' and '.join(taken)}): start it with "
            f"`edgecore run --data-dir {home}`, or choose another directory, or give --force to join anew"
        )
    former = _former_node(home)
    if (home / STORE).exists() and former not in (None, node):
        # Its unsent reports would go out under the other name.
        raise AlreadyJoined(f"{home} holds the data of node {former}: choose another directory for node {node}")


def _former_node(home: Path) -> str | None:
    """Whose certificate is there; None when that cannot be told."""
    from componentbase import pki

    try:
        return pki.common_name((home / PKI / CERTIFICATE_FILE).read_bytes()).removeprefix(SUBJECT)
    except (OSError, pki.BadCertificate):
        return None


def _settle(home: Path) -> None:
    """Where a crash left an identity between its two places (see _install): finish, or put back what was there."""
    staged, target = home / STAGED, home / PKI
    if (staged / ASKED_AS).exists() and not (staged / PKI).exists() and target.exists():
        if _text(home / CONFIGURATION) == _text(staged / CONFIGURATION):
            _unstage(staged)
            return
        target.rename(staged / PKI)
    if (staged / FORMER).exists():
        if not target.exists():
            (staged / FORMER).rename(target)
        else:
            _give_back(staged)


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _unstage(staged: Path) -> None:
    _give_back(staged)
    (staged / ASKED_AS).unlink()  # first: what is left of the rest is nothing to go on from
    shutil.rmtree(staged, ignore_errors=True)


def _give_back(staged: Path) -> None:
    """Move what others put beside the identity that was replaced to the one that is in place now."""
    former, target = staged / FORMER, staged.parent / PKI
    if former.is_symlink() or not former.exists():  # what a link leads to stays where it is
        return
    kept = [path for path in sorted(former.iterdir()) if path.name not in IDENTITY_FILES and not _is_part(path)]
    for path in kept:
        if not (target / path.name).exists():
            path.rename(target / path.name)
    if kept:
        fsync_dir(target)
        names = ", ".join(path.name for path in kept)
        logger.info("kept, for it is not ours", extra={"directory": str(target), "files": names})


def _is_part(path: Path) -> bool:
    """Whether write_atomic left it, killed while it wrote one of ours."""
    return any(path.match(f".{name}.*.part") for name in IDENTITY_FILES)


@dataclass
class _Staged:
    """DIR/.joining, and whether a hub may have used the token for the keys in it, or signed for them."""

    folder: Path
    is_asked: bool


@contextlib.contextmanager
def _staged(home: Path, node: Node, pin: str) -> Iterator[_Staged]:
    """
    DIR/.joining with keys in pki/, safe from a power cut before anybody hears of them; those of last time if they do.

    They are gone again after the block, but where the hub was asked, or may have been: then whatever comes after it.
    """
    folder = home / STAGED
    staged = _Staged(folder, _is_staged(folder, node, pin))
    if not staged.is_asked:
        _stage(folder, node, pin)
    try:
        yield staged
    except JoinError as exc:
        if not staged.is_asked and not isinstance(exc, Unsigned):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    _unstage(folder)


def _is_staged(staged: Path, node: Node, pin: str) -> bool:
    from componentbase import pki

    try:
        for name in (KEY_FILE, SERVING_KEY_FILE):
            pki.make_csr((staged / PKI / name).read_bytes(), SUBJECT + node, _ORGANIZATION)
        return (staged / ASKED_AS).read_text() == _asked_as(node, pin)
    except (OSError, ValueError, pki.PkiError):
        return False


def _stage(staged: Path, node: Node, pin: str) -> None:
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(mode=0o700)
        make_keys(staged / PKI, node)
        write_atomic(staged / ASKED_AS, _asked_as(node, pin).encode())
        fsync_dir(staged.parent)
    except BaseException as exc:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(exc, OSError):
            raise Unusable(staged, f"cannot be written: {(exc.strerror or str(exc)).lower()}") from exc
        raise


def make_keys(folder: Path, node: Node) -> None:
    """Make the directory, and in it the keys of a node, flushed. Raises OSError and Unusable."""
    from componentbase import pki

    folder.mkdir(mode=0o700)
    for name in (KEY_FILE, SERVING_KEY_FILE):
        write_atomic(folder / name, pki.make_key_and_csr(SUBJECT + node, _ORGANIZATION)[0])
    fsync_dir(folder.parent)


def _asked_as(node: Node, pin: str) -> str:
    return f"{node} {pin}\n"


def _install(home: Path, staged: Path, answer: Answer, configuration: str, hub: Hub) -> None:
    """Put the new identity in place: completed aside, checked, moved in whole, the old one back where that fails."""
    folder, target, former = staged / PKI, home / PKI, staged / FORMER
    write_atomic(folder / CERTIFICATE_FILE, answer.certificate.encode(), 0o644)
    write_atomic(folder / CA_FILE, answer.ca.encode(), 0o644)
    if answer.serving:
        write_atomic(folder / SERVING_FILE, answer.serving.encode(), 0o644)
    else:  # a hub of an earlier release signs none
        (folder / SERVING_KEY_FILE).unlink()
    check_identity(folder, hub)
    write_atomic(staged / CONFIGURATION, configuration.encode())
    if target.exists():
        target.rename(former)
    folder.rename(target)
    try:
        write_atomic(home / CONFIGURATION, configuration.encode())  # flushes the directory, so the moves too
    except BaseException:
        target.rename(folder)
        if former.exists():
            former.rename(target)
        raise


def check_identity(folder: Path, hub: Hub) -> None:
    """What was signed must be a certificate for our key, and the CA one that TLS can use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
        context.load_verify_locations(folder / CA_FILE)
    except (ssl.SSLError, ValueError) as exc:
        raise hub.nonsense() from exc
