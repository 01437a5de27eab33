"""
`--signer kubernetes`: the cluster's CA signs the nodes, through CertificateSigningRequests of certificates.k8s.io.

A request is named for node and key, so that whoever asks again, at whatever replica, goes on with the same one. The hub
approves it where its policy says so, for a token is an operator's word given beforehand; else a person does. What comes
back is held against what was asked for, for others may write in that API, too.

The signer is by default the cluster's own for kubelets: it signs O=system:nodes, CN=system:node:NAME for clients and
nothing else. What its certificates open besides this hub, and why the hub takes only keys that it let in itself, is in
docs/why/join.md.

Invariants
    nothing is approved but a request for this node's subject and this key, each time that it was read
    a request that was denied, or failed, is not asked again while it is there; the cluster forgets it after an hour
    no certificate is taken but for this node and key, of a CA that the link trusts
"""

import asyncio
import base64
import binascii
import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from apimachinery.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import JSON, lookup
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS, SELF_ACCESS_REVIEWS, SELF_SUBJECT_REVIEWS
from cloudhub.authority import NODE_PREFIX, NODES_ORGANIZATION
from cloudhub.clientcas import ClientCas
from cloudhub.settings import KUBELET_SIGNER
from cloudhub.signers import RENEWAL, Issued, SignerNotTrusted, SigningDenied, SigningFailed, Waiting, Wanted
from componentbase import pki
from componentbase.words import rfc3339

logger = logging.getLogger(__name__)

MIN_S = 600  # certificates.k8s.io takes no shorter expirationSeconds
LOOKS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)  # three seconds: kube-controller-manager signs within a tenth of one
USAGES = ("client auth", "digital signature")  # of a kubelet whose key is an EC one, from 1.27 on
AGAIN_S, AGAIN_OF_AGE = (2, 60), 0.25  # of a request that waits
OPEN_S = 3600.0  # for so long a request that waits keeps another key of its node from asking
MAKING_S = 10.0  # as long as a request takes to be there, from when its turn came
KEY_DIGITS = 20  # of a request's name: what it says is compared, this only tells them apart

_NODE_LABEL, _VOUCHED, _PEER = "fairlead.io/node", "fairlead.io/vouched-by", "fairlead.io/peer"
_ATTEMPTS = 4

Refusal = TypeVar("Refusal", bound=ApiError)


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
        self._me: str | None = None

    @property
    def notice(self) -> str:
        if self._policy.approves:
            return ""
        return "joining waits until somebody approves it in the cluster, with `kubectl certificate approve`"

    async def tell_missing_rights(self) -> None:
        """Warn of what would fail when a node joins; at the start, when somebody is looking. Raises ApiError."""
        if not (missing := await self.missing_rights()):
            return
        policy = self._policy
        named = "" if policy.signer == KUBELET_SIGNER else f" --signer-name {policy.signer}"
        named += "" if policy.approves else " --no-approve"
        remedy = f"cloudcore rbac --signer kubernetes{named} | kubectl apply -f -"
        told = {"signer": policy.signer, "missing": "; ".join(missing), "remedy": remedy}
        logger.warning("nodes cannot be signed: cloudcore lacks rights", extra=told)

    async def missing_rights(self) -> list[str]:
        """What this hub lacks to have a node signed, each as "VERB RESOURCE [NAME]". Raises ApiError."""
        wanted = [("get", "certificatesigningrequests", "", ""), ("create", "certificatesigningrequests", "", "")]
        if self._policy.approves:
            wanted.append(("update", "certificatesigningrequests", "approval", ""))
            wanted.append(("approve", "signers", "", self._policy.signer))
        return [_right(*each) for each in wanted if not await self._may(*each)]

    async def _may(self, verb: str, resource: str, subresource: str, name: str) -> bool:
        attributes = {"group": CERTIFICATE_SIGNING_REQUESTS.group, "verb": verb, "resource": resource}
        body = {
            "apiVersion": SELF_ACCESS_REVIEWS.api_version,
            "kind": SELF_ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": {**attributes, "subresource": subresource, "name": name}},
        }
        return bool(lookup(await self._cluster.create(SELF_ACCESS_REVIEWS, "", body), "status.allowed"))

    async def found(self, wanted: Wanted) -> Issued | Waiting | None:
        _check_wanted(wanted)
        try:
            request = await self._cluster.get(_key_of(wanted))
        except NotFound:
            return None
        return await self._told(wanted, request)

    async def is_open(self, node: Node, key: str, age_s: float) -> bool:
        if age_s >= OPEN_S:
            return False
        try:
            request = await self._cluster.get(_key(node, key))
        except NotFound:
            return age_s < MAKING_S
        is_answered = lookup(request, "status.certificate") or _condition(request, "Denied")
        return not is_answered and not _condition(request, "Failed")

    async def ask(self, wanted: Wanted) -> Issued | Waiting:
        _check_wanted(wanted)
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
            told = await self._told(wanted, await self._cluster.get(_key_of(wanted)))
            if isinstance(told, Issued):
                break
        return told

    async def _requested(self, wanted: Wanted) -> Mapping[str, JSON]:
        with contextlib.suppress(NotFound):  # looked at first, for whoever waits comes here every few seconds
            return await self._cluster.get(_key_of(wanted))
        try:
            made = await self._cluster.create(CERTIFICATE_SIGNING_REQUESTS, "", self._request(wanted))
        except AlreadyExists:  # another replica was quicker
            return await self._cluster.get(_key_of(wanted))
        self._me = str(lookup(made, "spec.username") or "")
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
                await self._cluster.replace(_key_of(wanted), {**request, "status": status}, "approval")
            except Conflict:
                request = await self._cluster.get(_key_of(wanted))
                await self._check_request(wanted, request)  # it may be another one by now
                continue
            return
        raise Conflict(f"too many write of the signing request {name_of(wanted)} at once")

    async def _told(self, wanted: Wanted, request: Mapping[str, JSON]) -> Issued | Waiting:
        """What has become of a request. Raises SigningDenied, SigningFailed, SignerNotTrusted."""
        name, signer, again = name_of(wanted), str(lookup(request, "spec.signerName")), _again(wanted)
        is_own = await self._check_request(wanted, request)
        if denied := _condition(request, "Denied"):
            raise _of(
                wanted, SigningDenied, f"the signing request {name} was denied in the cluster{_said(denied)}; {again}"
            )
        if failed := _condition(request, "Failed"):
            raise _of(wanted, SigningFailed, f"the signer {signer} does not sign {name}{_said(failed)}; {again}")
        # What others wrote says nothing of our tokens.
        vouched = str((lookup(request, "metadata.annotations") or {}).get(_VOUCHED, "")) if is_own else ""
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

    async def _check_request(self, wanted: Wanted, request: Mapping[str, JSON]) -> bool:
        """
        Whether a hub made it. Raises SigningFailed where it is not what we ask for.

        A node may make requests, too: one for its key, for longer than it is to have it, is not approved for it. What a
        hub made was for as long as was configured then.
        """
        spec, asked = request.get("spec") or {}, self._request(wanted)["spec"]
        seconds, me = spec.get("expirationSeconds"), await self._whoami()
        is_own = bool(me) and spec.get("username") == me  # the apiserver writes it, and nobody changes it
        if (
            spec.get("signerName") == asked["signerName"]
            and set(spec.get("usages") or ()) == set(asked["usages"])
            and (is_own or (isinstance(seconds, int) and seconds <= asked["expirationSeconds"]))
            and _is_for(wanted, _decoded(spec.get("request")))
        ):
            return is_own
        told = f"the signing request {name_of(wanted)} of the cluster is not what cloudcore asks for: {_again(wanted)}"
        raise _of(wanted, SigningFailed, told)

    async def _whoami(self) -> str:
        """As whom the apiserver knows us; "" where it does not tell."""
        if self._me is None:
            body = {"apiVersion": SELF_SUBJECT_REVIEWS.api_version, "kind": SELF_SUBJECT_REVIEWS.kind}
            try:
                found = await self._cluster.create(SELF_SUBJECT_REVIEWS, "", body)
            except (Forbidden, NotFound):  # Kubernetes has it from 1.28 on
                found = {}
            self._me = str(lookup(found, "status.userInfo.username") or "")
        return self._me

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
        """Raises SignerNotTrusted, and SigningFailed for one that has lapsed."""
        try:
            subject = pki.subject_of(certificate)
            is_right = subject == (NODE_PREFIX + wanted.node, (NODES_ORGANIZATION,))
            is_right = is_right and pki.key_id(certificate) == wanted.key
            is_trusted = pki.leads_to(certificate, await self._cas())
            lapses = pki.not_after(certificate)
        except OSError as exc:
            told = f"the file of --client-ca cannot be read: {exc.strerror}"
            raise _of(wanted, SignerNotTrusted, told) from exc
        except pki.PkiError as exc:
            told = f"what {self._policy.signer} signed cannot be read: {exc}"
            raise _of(wanted, SignerNotTrusted, told) from exc
        if not is_right:
            told = f"{self._policy.signer} has signed something else than was asked for"
            raise _of(wanted, SignerNotTrusted, told)
        if not is_trusted:
            told = (
                f"the certificates of {self._policy.signer} are of a CA that this hub does not trust: start cloudcore "
                "with --client-ca FILE, the signer's CA"
            )
            raise _of(wanted, SignerNotTrusted, told)
        if lapses <= self._now():
            told = f"the certificate of {name_of(wanted)} lapsed at {rfc3339(lapses)}; {_again(wanted)}"
            raise _of(wanted, SigningFailed, told)


def _of(wanted: Wanted, error: type[Refusal], text: str) -> Refusal:
    """Names the request, by which the edge knows that its key was asked for, and keeps it."""
    return error(
        text, kind=CERTIFICATE_SIGNING_REQUESTS.kind, group=CERTIFICATE_SIGNING_REQUESTS.group, name=name_of(wanted)
    )


def name_of(wanted: Wanted) -> str:
    """Of the CertificateSigningRequest."""
    return _key_of(wanted).name


def _key_of(wanted: Wanted) -> ObjectKey:
    return _key(wanted.node, wanted.key)


def _key(node: Node, key: str) -> ObjectKey:
    return ObjectKey(CERTIFICATE_SIGNING_REQUESTS, "", f"fairlead-{node}-{key[:KEY_DIGITS]}")


def _again(wanted: Wanted) -> str:
    """What to do, as it can be typed."""
    then = "`edgecore renew` at the node" if wanted.vouched == RENEWAL else "the same command"
    return f"to ask again: `kubectl delete csr {name_of(wanted)}`, then {then}"


def _is_for(wanted: Wanted, csr: bytes) -> bool:
    """Whether a request is for this node's subject, whole, for this key, and for nothing else."""
    try:
        key = pki.requested_key(csr, NODE_PREFIX + wanted.node, NODES_ORGANIZATION)
        return key == wanted.key and pki.read_csr(csr).organizations == (NODES_ORGANIZATION,)
    except pki.PkiError:
        return False


def _right(verb: str, resource: str, subresource: str, name: str) -> str:
    return f"{verb} {resource}{'/' if subresource else ''}{subresource} {name}".rstrip()


def _check_wanted(wanted: Wanted) -> None:
    """Raises Invalid for what only our own CA would sign, which writes the subject itself."""
    if not _is_for(wanted, wanted.csr):
        raise Invalid(
            "the certificate signing request is refused: the cluster signs the subject that is asked for, which must "
            f"be O={NODES_ORGANIZATION}, CN={NODE_PREFIX}{wanted.node}"
        )


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
