"""
Whose client certificates the cluster takes: the CAs that nodes' certificates are of with `--signer kubernetes`.

They are in a ConfigMap that whoever is authenticated may be let read, or in a file where a signer of one's own is used.
A bundle may say in words what its certificates are, in any encoding: only the certificates are taken.

Invariants
    what is given is certificates that the TLS library has read, and nothing else
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from apimachinery.errors import InternalError, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, lookup
from apimachinery.resources import CONFIG_MAPS
from componentbase.certificates import ders, pem_of

PUBLISHED = ObjectKey(CONFIG_MAPS, "kube-system", "extension-apiserver-authentication")
PUBLISHED_AS = "client-ca-file"
"""Where kube-apiserver says whose clients it takes."""


class Objects(Protocol):
    """The request that this needs; cloudhub.apiclient.ApiClient has it."""

    async def get(self, key: ObjectKey) -> Mapping[str, JSON]: ...


class ClientCas:
    """The CAs of the cluster's client certificates, as they are now."""

    def __init__(self, objects: Objects, file: Path | None = None) -> None:
        """file: PEM, in the place of what the cluster publishes."""
        self._objects = objects
        self._file = file

    async def __call__(self) -> bytes:
        """PEM. Raises OSError for the file, ApiError as the apiserver answers, or with what to do."""
        where = str(self._file) if self._file else f"the ConfigMap {PUBLISHED.namespace}/{PUBLISHED.name}"
        try:
            pem = await asyncio.to_thread(self._file.read_bytes) if self._file else await self._published()
        except NotFound as exc:
            raise NotFound(f"there is no {where[4:]} with the signer's CA: name its file with --client-ca") from exc
        try:
            found = b"".join(map(pem_of, ders(pem)))
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode())
        except (ValueError, ssl.SSLError) as exc:  # also where there is none
            raise InternalError(f"no CA of the cluster's signer: {where} has no certificate in PEM form") from exc
        return found

    async def _published(self) -> bytes:
        found = await self._objects.get(PUBLISHED)
        return str(lookup(found, f"data.{PUBLISHED_AS}") or "").encode()
