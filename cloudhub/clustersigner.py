"""
`--signer kubernetes`: the cluster's CA signs the nodes, through CertificateSigningRequests of certificates.k8s.io.

A request is named for node and key, so that whoever asks again, at whatever replica, goes on with the same one. The hub
approves it where its policy says so, for a token is an operator's word given beforehand; else a person does. What comes
back is held against what was asked for, for others may write in that API, too.

The signer is by default the cluster's own for kubelets: it signs O=system:nodes, CN=system:node:NAME for clients and
nothing else. What its certificates open besides this hub, and why the hub takes only keys that it let in itself, is in
docs/why/join.md.

Invariants
    a request that somebody denied, or that failed, is never asked again by itself
    no certificate is taken but for this node and key, of a CA that the link trusts
"""

import asyncio
import base64
import binascii
import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from apimachinery.errors import AlreadyExists, Conflict, InternalError, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, lookup
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS
from cloudhub.authority import NODE_PREFIX, NODES_ORGANIZATION
from cloudhub.settings import KUBELET_SIGNER
from cloudhub.signers import Issued, SignerNotTrusted, SigningDenied, SigningFailed, Waiting, Wanted
from componentbase import pki
from componentbase.certificates import ders

logger = logging.getLogger(__name__)

PUBLISHED = ObjectKey(CONFIG_MAPS, "kube-system", "extension-apiserver-authentication")
PUBLISHED_AS = "client-ca-file"
"""Where kube-apiserver says whose clients it takes."""

MIN_S = 600  # certificates.k8s.io takes no shorter expirationSeconds
LOOKS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)  # three seconds: kube-controller-manager signs within a tenth of one
USAGES = ("client auth", "digital signature")  # of a kubelet whose key is an EC one, from 1.27 on
AGAIN_S, AGAIN_OF_AGE = (2, 60), 0.25  # of a request that waits
KEY_DIGITS = 20  # of a request's name: what it says is compared, this only tells them apart

_NODE_LABEL, _VOUCHED, _PEER = "fairlead.io/node", "fairlead.io/vouched-by", "fairlead.io/peer"
_ATTEMPTS = 4


class Cluster(Protocol):
    """The requests that this needs; cloudhub.apiclient.ApiClient has them."""

    async def get(self, key: ObjectKey) -> Mapping[str, JSON]: ...

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> Mapping[str, JSON]: ...

    async def replace(self, key: ObjectKey, value: Mapping[str, JSON], subresource: str = "") -> Mapping[str, JSON]: ...


class Policy(NamedTuple):
    """How the cluster is asked."""

    signer: str = KUBELET_SIGNER
    approves: bool = True
    """Whether this hub approves what it has checked; else a person has to."""
    certificate_s: float = 365 * 86400.0
    """How long it is to be valid; the signer may give less."""


class ClientCas:
    """The CAs of the cluster's client certificates, as they are now."""

    def __init__(self, cluster: Cluster, file: Path | None = None) -> None:
        """file: PEM, in the place of what the cluster publishes."""
        self._cluster = cluster
        self._file = file

    async def __call__(self) -> bytes:
        """PEM. Raises OSError for the file, ApiError as the apiserver answers, or with what to do."""
        where = str(self._file) if self._file else f"the ConfigMap {PUBLISHED.namespace}/{PUBLISHED.name}"
        try:
            pem = await asyncio.to_thread(self._file.read_bytes) if self._file else await self._published()
        except NotFound as exc:
            raise NotFound(f"there is no {where[4:]} with the signer's CA: name its file with --client-ca") from exc
        try:
            found = ders(pem)
        except ValueError:
            found = []
        if not found:
            raise InternalError(f"no CA of the cluster's signer: {where} has no certificate in PEM form")
        return pem

    async def _published(self) -> bytes:
        found = await self._cluster.get(PUBLISHED)
        return str(lookup(found, f"data.{PUBLISHED_AS}") or "").encode()


class ClusterSigner:
    """A cloudhub.signers.NodeSigner."""

    def __init__(
        self,
        cluster: Cluster,
        cas: ClientCas,
        policy: Policy = Policy(),  # noqa: B008 - it is immutable
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._now = now
        self._cluster = cluster
        self._cas = cas
        self._policy = policy

    @property
    def notice(self) -> str:
        if self._policy.approves:
            return ""
        return "joining waits until somebody approves it in the cluster, with `kubectl certificate approve`"

    async def found(self, wanted: Wanted) -> Issued | Waiting | None:
        try:
            request = await self._cluster.get(_key(wanted))
        except NotFound:
            return None
        return await self._told(wanted, request)

    async def ask(self, wanted: Wanted) -> Issued | Waiting:
        request = await self._requested(wanted)
        told = await self._told(wanted, request)
        if isinstance(told, Issued):
            return told
        if not _condition(request, "Approved"):
            if not self._policy.approves:
                return told
            await self._approve(wanted, request)
        for wait_s in LOOKS_S:
            await asyncio.sleep(wait_s)
            told = await self._told(wanted, await self._cluster.get(_key(wanted)))
            if isinstance(told, Issued):
                break
        return told

    async def _requested(self, wanted: Wanted) -> Mapping[str, JSON]:
        with contextlib.suppress(NotFound):  # looked at first, for whoever waits comes here every few seconds
            return await self._cluster.get(_key(wanted))
        try:
            made = await self._cluster.create(CERTIFICATE_SIGNING_REQUESTS, "", self._request(wanted))
        except AlreadyExists:  # another replica was quicker
            return await self._cluster.get(_key(wanted))
        logger.info("certificate asked of the cluster", extra={"node": wanted.node, "request": name_of(wanted)})
        return made

    def _request(self, wanted: Wanted) -> dict[str, JSON]:
        annotations = {_VOUCHED: wanted.vouched} | ({_PEER: wanted.peer} if wanted.peer else {})
        return {
            "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version,
            "kind": CERTIFICATE_SIGNING_REQUESTS.kind,
            "metadata": {
                "name": name_of(wanted),
                "labels": {_NODE_LABEL: wanted.node},
                "annotations": annotations,
            },
            "spec": {
                "request": base64.b64encode(wanted.csr).decode(),
                "signerName": self._policy.signer,
                "usages": list(USAGES),
                "expirationSeconds": max(MIN_S, round(self._policy.certificate_s)),
            },
        }

    async def _approve(self, wanted: Wanted, request: Mapping[str, JSON]) -> None:
        """What somebody decided meanwhile stands."""
        message = f"cloudcore has checked the node's {wanted.vouched}"
        approved = {"type": "Approved", "status": "True", "reason": "CheckedByCloudcore", "message": message}
        for _ in range(_ATTEMPTS):
            if _condition(request, "Approved") or _condition(request, "Denied"):
                return
            status = dict(request.get("status") or {})
            status["conditions"] = [*(status.get("conditions") or ()), approved]
            try:
                await self._cluster.replace(_key(wanted), {**request, "status": status}, "approval")
            except Conflict:
                request = await self._cluster.get(_key(wanted))
                continue
            return
        raise Conflict(f"too many write of the signing request {name_of(wanted)} at once")

    async def _told(self, wanted: Wanted, request: Mapping[str, JSON]) -> Issued | Waiting:
        """What has become of a request. Raises SigningDenied, SigningFailed, SignerNotTrusted."""
        name, signer = name_of(wanted), str(lookup(request, "spec.signerName"))
        again = f"to ask again: `kubectl delete csr {name}`, then the same command"
        if not self._is_ours(wanted, request):
            raise SigningFailed(f"the signing request {name} of the cluster is not what cloudcore asks for: {again}")
        if denied := _condition(request, "Denied"):
            raise SigningDenied(f"the signing request {name} was denied in the cluster{_said(denied)}; {again}")
        if failed := _condition(request, "Failed"):
            raise SigningFailed(f"the signer {signer} does not sign {name}{_said(failed)}; {again}")
        vouched = str((lookup(request, "metadata.annotations") or {}).get(_VOUCHED, ""))
        certificate = _decoded(lookup(request, "status.certificate"))
        if certificate:
            await self._check(wanted, certificate)
            return Issued(certificate, vouched)
        if _condition(request, "Approved"):
            text = (
                f"{name} is approved, and the signer {signer} has not signed it yet: see `kubectl describe csr {name}`"
            )
        else:
            text = f"the request is to be approved in the cluster: `kubectl certificate approve {name}`, or `deny`"
        return Waiting(text, vouched, self._again_s(request))

    def _is_ours(self, wanted: Wanted, request: Mapping[str, JSON]) -> bool:
        """A node may make requests, too: one for its key, for longer than it is to have it, is not approved for it."""
        spec, asked = request.get("spec") or {}, self._request(wanted)["spec"]
        seconds = spec.get("expirationSeconds")
        return (
            spec.get("signerName") == asked["signerName"]
            and set(spec.get("usages") or ()) == set(asked["usages"])
            and isinstance(seconds, int)
            and seconds <= asked["expirationSeconds"]
            and _key_of(request) == wanted.key
        )

    def _again_s(self, request: Mapping[str, JSON]) -> int:
        """Who sees it come decides soon; who has not after minutes is not asked for by a fleet each second."""
        made = lookup(request, "metadata.creationTimestamp")
        try:
            age_s = (self._now() - datetime.datetime.fromisoformat(str(made))).total_seconds()
        except (ValueError, TypeError):
            age_s = 0.0
        first_s, most_s = AGAIN_S
        return round(min(most_s, max(first_s, age_s * AGAIN_OF_AGE)))

    async def _check(self, wanted: Wanted, certificate: bytes) -> None:
        """Raises SignerNotTrusted."""
        try:
            subject = pki.subject_of(certificate)
            is_right = subject == (NODE_PREFIX + wanted.node, (NODES_ORGANIZATION,))
            is_right = is_right and pki.key_id(certificate) == wanted.key
            is_trusted = pki.leads_to(certificate, await self._cas())
        except OSError as exc:
            raise SignerNotTrusted(f"the file of --client-ca cannot be read: {exc.strerror}") from exc
        except pki.PkiError as exc:
            raise SignerNotTrusted(f"what {self._policy.signer} signed cannot be read: {exc}") from exc
        if not is_right:
            raise SignerNotTrusted(f"{self._policy.signer} has signed something else than was asked for")
        if not is_trusted:
            raise SignerNotTrusted(
                f"the certificates of {self._policy.signer} are of a CA that this hub does not trust: start cloudcore "
                "with --client-ca FILE, the signer's CA"
            )


def name_of(wanted: Wanted) -> str:
    """Of the CertificateSigningRequest."""
    return f"fairlead-{wanted.node}-{wanted.key[:KEY_DIGITS]}"


def _key(wanted: Wanted) -> ObjectKey:
    return ObjectKey(CERTIFICATE_SIGNING_REQUESTS, "", name_of(wanted))


def _key_of(request: Mapping[str, JSON]) -> str:
    try:
        return pki.read_csr(_decoded(lookup(request, "spec.request"))).key
    except pki.PkiError:
        return ""


def _condition(request: Mapping[str, JSON], kind: str) -> Mapping[str, JSON]:
    """The one of this type; nothing where there is none."""
    for each in lookup(request, "status.conditions") or ():
        if each.get("type") == kind:
            found: Mapping[str, JSON] = each
            return found
    return {}


def _said(condition: Mapping[str, JSON]) -> str:
    """Why, as whoever decided has written; for one line."""
    words = (str(condition.get(name) or "") for name in ("reason", "message"))
    text = ": ".join(filter(None, words))
    return f" ({' '.join(text.split())[:300]})" if text else ""


def _decoded(text: JSON) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (TypeError, binascii.Error):
        return b""
