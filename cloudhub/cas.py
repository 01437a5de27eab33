"""
The CAs of one installation, kept in the vault: one, or two while the second takes the first one's place.

The first is the Secret `fairlead-ca`, each further one has the next number: `fairlead-ca-2`. Entries are written once,
so a rotation is one Secret more, and its end is one Secret less; replicas look now and then and need not be told.

The second CA is trusted from when a replica sees it, and signs from a moment that is written in it, by when all have:
else one would sign what another refuses. Until the rotation is finished hubs show certificates of the first one, for
nodes that were away know that one only; a signature of the second under the first is shown along, for those who know
the second only (docs/why/rotation.md).

Invariants
    the first CA is made once: of two replicas that start at once, the loser takes the winner's
    there are never more than two
    what is dropped is the oldest
"""

import asyncio
import contextlib
import datetime
import logging
import re
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from apimachinery.errors import AlreadyExists, Conflict, InternalError, NotFound
from cloudhub.memoryfile import as_file
from cloudhub.vault import NAMESPACE, Entry, Vault
from componentbase import pki

logger = logging.getLogger(__name__)

SECRET_NAME = "fairlead-ca"  # noqa: S105 - a Secret's name
CA_DAYS = 3650

_KIND = "kubernetes.io/tls"
_CERTIFICATE, _KEY = "tls.crt", "tls.key"  # the fields kube-apiserver demands of that type
_SIGNS_FROM = "signsFrom"
_LABEL, _LABEL_VALUE = "fairlead.io/kind", "certificate-authority"
_NAME = re.compile(rf"{SECRET_NAME}(?:-([1-9][0-9]{{0,8}}))?")
_ALWAYS = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class Ca(NamedTuple):
    """One CA."""

    name: str
    """Of its Secret."""
    pair: pki.KeyPair
    pin: str
    """SHA-256 of the certificate's DER, in hexadecimal: what a join token carries."""
    expires: datetime.datetime
    signs_from: datetime.datetime = _ALWAYS

    @classmethod
    def of(cls, pair: pki.KeyPair, name: str = SECRET_NAME, signs_from: datetime.datetime = _ALWAYS) -> "Ca":
        """Raises BadCertificate."""
        return cls(name, pair, pki.fingerprint(pair.cert_pem), pki.not_after(pair.cert_pem), signs_from)


async def load(vault: Vault) -> list[Ca]:
    """The CAs there are, the oldest first. Raises ApiError; InternalError where one is damaged."""
    entries = {entry.name: entry for entry in await vault.list(f"{_LABEL}={_LABEL_VALUE}")}
    if SECRET_NAME not in entries:  # earlier releases gave it no label
        with contextlib.suppress(NotFound):
            entries[SECRET_NAME] = await vault.get(SECRET_NAME)
    numbered = sorted((_number(name), name) for name in entries)
    return [_read(entries[name]) for number, name in numbered if number]


async def load_or_make(vault: Vault) -> list[Ca]:
    """The same, and the first one is made now where there is none."""
    if found := await load(vault):
        return found
    made = await asyncio.to_thread(pki.create_ca, "fairlead", CA_DAYS)
    try:
        entry = await _keep(vault, SECRET_NAME, made, {})
        logger.info("certificate authority made", extra={"pin": pki.fingerprint(made.cert_pem)})
    except AlreadyExists:
        entry = await vault.get(SECRET_NAME)
    return [_read(entry)]


async def begin(vault: Vault, signs_from: datetime.datetime) -> Ca:
    """
    Have a second CA, which signs from then on. NotFound where there is no first, Conflict where there is a second.

    Of two who begin at once one is told AlreadyExists.
    """
    cas = await load(vault)
    if not cas:
        raise NotFound("there is no CA yet, so there is none to replace: the first `cloudcore run` makes it")
    if len(cas) > 1:
        raise Conflict(
            f"a rotation is under way, {cas[-1].name} takes the place of {cas[0].name}: "
            "finish it first, with `cloudcore ca rotate --finish`"
        )
    number = _number(cas[0].name) + 1
    # It signs the first one's key, so that there may be one CA between it and a leaf.
    pair = await asyncio.to_thread(pki.create_ca, f"fairlead-{number}", CA_DAYS, 1)
    moment = signs_from.astimezone(datetime.UTC).isoformat(timespec="seconds")
    return _read(await _keep(vault, f"{SECRET_NAME}-{number}", pair, {_SIGNS_FROM: moment.encode()}))


async def drop_first(vault: Vault, cas: Sequence[Ca]) -> None:
    """End a rotation, of what load() gave: nothing trusts the first CA any more as soon as replicas have looked."""
    assert len(cas) > 1, "the last CA is not dropped"
    await vault.delete(cas[0].name)


async def _keep(vault: Vault, name: str, pair: pki.KeyPair, more: dict[str, bytes]) -> Entry:
    fields = {_CERTIFICATE: pair.cert_pem, _KEY: pair.key_pem, **more}
    return await vault.create(name, _KIND, fields, labels={_LABEL: _LABEL_VALUE})


def _number(name: str) -> int:
    """0 for what is no name of ours."""
    found = _NAME.fullmatch(name)
    return 0 if found is None else int(found[1] or 1)


def _read(entry: Entry) -> Ca:
    """Raises InternalError for what is not whole: certificate, key, and that one belongs to the other."""
    try:
        pair = pki.KeyPair(entry.fields[_CERTIFICATE], entry.fields[_KEY])
        moment = entry.fields.get(_SIGNS_FROM)
        signs_from = _ALWAYS if moment is None else datetime.datetime.fromisoformat(moment.decode())
        if signs_from.tzinfo is None:
            raise ValueError("a time without its zone")
        found = Ca.of(pair, entry.name, signs_from)
        _check_whole(pair)
    except (KeyError, ValueError, TypeError, ssl.SSLError, pki.PkiError) as exc:
        raise InternalError(
            f"the Secret {NAMESPACE}/{entry.name} does not hold a usable CA ({exc}): restore it, "
            "or delete it to start over with a new CA, which every node must then join again"
        ) from exc
    return found


@lru_cache(maxsize=4)  # hubs look at theirs every 30 s, and find what they found before
def _check_whole(pair: pki.KeyPair) -> None:
    """Raises ValueError, SSLError or PkiError where it is not, and then again when it is asked again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=pair.cert_pem.decode())
    with as_file(pair.cert_pem + pair.key_pem) as path:
        context.load_cert_chain(path)
    with contextlib.suppress(pki.CaExpired):  # whole, and of no use: whoever wants something signed is told
        pki.issue_server_cert(pair, ["localhost"], 1)  # using it once is the rest of the check
