"""
The signers of a cluster: who is approved gets a certificate of the cluster's client CA, and old requests go.

    kubernetes.io/kube-apiserver-client-kubelet   for CN=system:node:NAME, O=system:nodes and nothing else
    kubernetes.io/kube-apiserver-client           for anybody else; O=system:masters was refused when it was asked for

Nothing here approves: people do, with `kubectl certificate approve`, or who is bound to a role that may. Requests for
other signers are left to those.

Invariants
    nothing is signed that was not approved, or is denied, or has failed
    what a signer does not sign is marked Failed, with why, and looked at no more

After k8s.io/kubernetes/pkg/controller/certificates, its signer and its cleaner, and pkg/apis/certificates/helpers.go.
"""

import base64
import calendar
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from apimachinery.errors import ApiError
from apimachinery.events import Change
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, Object, lookup
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS
from apiserver import plans
from apiserver.admission import Admission
from apiserver.collector import Source, follow
from apiserver.metadata import Facts, metadata_of
from apiserver.plans import DeleteOptions, Plan, Put, View
from apiserver.requests import ApiRequest, Verb
from apiserver.signing import API_CLIENT, KUBELET_CLIENT, MIN_SECONDS, conditions_of, has, request_of
from apiserver.writes import facts
from componentbase import pki

logger = logging.getLogger(__name__)

SIGNING_S = 365 * 86400  # kube-controller-manager's --cluster-signing-duration
POLL_S = 600.0
DONE_S = 3600.0  # issued, denied and failed requests stay for whoever asked to fetch what became of them
PENDING_S = 86400.0

PUBLISHED = ObjectKey(CONFIG_MAPS, "kube-system", "extension-apiserver-authentication")
"""Where whoever trusts the cluster's clients finds their CAs, as kube-apiserver publishes them."""
PUBLISHED_AS = "client-ca-file"

_NODE_USAGES = ({"client auth", "digital signature"}, {"client auth", "digital signature", "key encipherment"})


async def publish(storage: Source, client_cas: bytes) -> None:
    """Write the CAs of client certificates, PEM, where kube-apiserver does."""
    data = {PUBLISHED_AS: client_cas.decode()}

    def make(view: View) -> Plan:
        found = view.get(PUBLISHED)
        if found is None:
            asked = ApiRequest(verb=Verb.CREATE, resource=CONFIG_MAPS, namespace=PUBLISHED.namespace)
            body = {"metadata": {"name": PUBLISHED.name}, "data": data}
            return plans.create(view, asked, body, facts(), Admission())
        body = found.parse()
        return Plan(200, () if body.get("data") == data else (Put(PUBLISHED, body | {"data": data}),))

    await storage.commit(make)


async def sign(storage: Source, ca: pki.KeyPair) -> None:
    """Sign what is approved and remove what is old, until cancelled."""

    async def look(change: Change) -> None:
        if change.object.key.resource == CERTIFICATE_SIGNING_REQUESTS:
            await _look_at(storage, change.object.key, ca)

    await follow(storage, POLL_S, partial(_sweep, storage, ca), look)


async def _sweep(storage: Source, ca: pki.KeyPair) -> None:
    for item in storage.view().all_of(CERTIFICATE_SIGNING_REQUESTS):
        if is_old(item, time.time()):
            await _commit(storage, _removed(item.key))
        else:
            await _look_at(storage, item.key, ca)


async def _look_at(storage: Source, key: ObjectKey, ca: pki.KeyPair) -> None:
    found = storage.view().get(key)
    if found is not None and _is_due(found.parse()):
        await _commit(storage, lambda view, now: _answered(view, key, ca, now))


async def _commit(storage: Source, make: Callable[[View, Facts], Plan]) -> None:
    try:
        await storage.commit(lambda view: make(view, facts()))
    except ApiError as exc:
        logger.warning("signing request left to the next sweep", extra={"error": str(exc)})


def _removed(key: ObjectKey) -> Callable[[View, Facts], Plan]:
    return lambda view, now: plans.delete(view, key, DeleteOptions(), now)


def _answered(view: View, key: ObjectKey, ca: pki.KeyPair, now: Facts) -> Plan:
    found = view.get(key)
    if found is None or not _is_due(body := found.parse()):
        return Plan(200, ())
    status = dict(body.get("status") or {})
    try:
        status["certificate"] = base64.b64encode(certificate_for(body, ca)).decode()
    except pki.PkiError as exc:
        reason = getattr(exc, "reason", str(exc))
        failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": reason}
        failed |= {"lastUpdateTime": now.now, "lastTransitionTime": now.now}
        status["conditions"] = [*conditions_of(body), failed]
    return Plan(200, (Put(key, body | {"status": status}),))


def _is_due(body: Mapping[str, JSON]) -> bool:
    return (
        lookup(body, "spec.signerName") in (API_CLIENT, KUBELET_CLIENT)
        and has(body, "Approved")
        and not has(body, "Denied")
        and not has(body, "Failed")
        and not lookup(body, "status.certificate")
    )


def certificate_for(body: Mapping[str, JSON], ca: pki.KeyPair) -> bytes:
    """What a request that is approved gets, PEM. Raises CsrRefused with why it gets nothing, CaExpired."""
    request, usages = request_of(body), list(lookup(body, "spec.usages") or ())
    told = pki.read_csr(request)
    if lookup(body, "spec.signerName") == KUBELET_CLIENT:
        problem = _not_a_node(told, usages)
    else:
        problem = _not_a_client(usages)
    if problem:
        raise pki.CsrRefused(problem)
    wanted = lookup(body, "spec.expirationSeconds")
    seconds = min(SIGNING_S, max(MIN_SECONDS, wanted)) if isinstance(wanted, int) else SIGNING_S
    return pki.sign_as_requested(ca, request, usages, seconds / 86400)


def _not_a_node(told: pki.Requested, usages: Sequence[str]) -> str:
    if told.organizations != ("system:nodes",):
        return "subject organization is not system:nodes"
    for kind in ("DNS", "email", "IP", "URI"):
        if any(name.startswith(f"{kind}:") for name in told.names):
            return f"{kind} subjectAltNames are not allowed"
    if not told.common_name.startswith("system:node:"):
        return "subject common name does not begin with system:node:"
    if set(usages) not in _NODE_USAGES:
        return f"usages did not match {sorted(_NODE_USAGES[0])}"
    return ""


def _not_a_client(usages: Sequence[str]) -> str:
    other = next((each for each in usages if each not in ("digital signature", "key encipherment", "client auth")), "")
    if other:
        return f"invalid usage for client certificate: {other}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def is_old(item: Object, now_s: float) -> bool:
    """Whether nobody will ask for it any more."""
    body = item.parse()
    if not conditions_of(body):
        return now_s - _seconds(metadata_of(body).get("creationTimestamp"), now_s) > PENDING_S
    if has(body, "Approved") and not (lookup(body, "status.certificate") or has(body, "Failed")):
        return False  # its signer is still at it
    since = max(_seconds(each.get("lastUpdateTime"), now_s) for each in conditions_of(body))
    return now_s - since > DONE_S


def _seconds(text: JSON, otherwise: float) -> float:
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, ValueError):
        return otherwise
