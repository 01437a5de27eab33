"""
What holds for CertificateSigningRequests: who asks is written by the server, what is asked for stays, and each part of
the answer is written at its own place by those who may.

    .../NAME/approval   Approved or Denied, by who may `approve` for the signer
    .../NAME/status     the certificate or Failed, by who may `sign` for it

Signing itself is apiserver.signer's.

Invariants
    nobody asks in another's name, and nobody changes what was asked for
    a decision is made once: conditions are not taken back, and a certificate is not replaced

Pure. After k8s.io/kubernetes/pkg/apis/certificates/validation, its registry's strategy, and the admission plugins
CertificateApproval, CertificateSigning and CertificateSubjectRestriction.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping

from apimachinery.errors import Cause, Forbidden
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, lookup
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS
from apiserver.attributes import Attributes
from apiserver.metadata import invalid
from apiserver.requests import ApiRequest
from apiserver.users import MASTERS, User
from componentbase.certificates import ders

API_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
MIN_SECONDS = 600
USAGES = (
    *("signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment"),
    *("cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth", "client auth"),
    *("code signing", "email protection", "s/mime", "ipsec end system", "ipsec tunnel", "ipsec user"),
    *("timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
)
"""k8s.io/api/certificates/v1 KeyUsage."""

Allows = Callable[[User, Attributes], tuple[bool, str]]

_DECISIONS = ("Approved", "Denied")
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SIGNER = re.compile(rf"{_LABEL}(\.{_LABEL})+/[a-z0-9A-Z]([-a-z0-9A-Z_.]*[a-z0-9A-Z])?")
_FIELDS = ("username", "uid", "groups", "extra")


def request_of(body: Mapping[str, JSON]) -> bytes:
    """The PEM text of what is asked for; b"" where it cannot be read."""
    return _decoded(lookup(body, "spec.request"))


def conditions_of(body: Mapping[str, JSON]) -> list[Mapping[str, JSON]]:
    found = lookup(body, "status.conditions")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def has(body: Mapping[str, JSON], condition: str) -> bool:
    return any(each.get("type") == condition for each in conditions_of(body))


def stamp(body: dict[str, JSON], user: User) -> None:
    """Write into a new request who asks, whatever it says of that itself."""
    spec = body.get("spec")
    if isinstance(spec, dict):
        told = user.to_json()
        body["spec"] = {name: value for name, value in spec.items() if name not in _FIELDS}
        body["spec"] |= {name: told[name] for name in _FIELDS if name in told}


def causes_of(body: dict[str, JSON], current: Mapping[str, JSON] | None, now: str) -> list[Cause]:
    """What is wrong with a request, or with what has become of it. Conditions without times get this one."""
    causes = list(_spec_causes(body.get("spec"))) if current is None else []
    before = {each.get("type"): each for each in (conditions_of(current) if current is not None else ())}
    status = body.get("status")
    listed = status.get("conditions") if isinstance(status, dict) else None
    if isinstance(status, dict) and isinstance(listed, list):
        status = body["status"] = dict(status)
        status["conditions"] = [_timed(each, before, now) if isinstance(each, dict) else each for each in listed]
    causes += _condition_causes(conditions_of(body))
    certificate = lookup(body, "status.certificate")
    if certificate and certificate != lookup(current or {}, "status.certificate") and not _is_certificate(certificate):
        causes.append(_cause("status.certificate", "must contain at least one CERTIFICATE PEM block", '""'))
    return causes


def judge(wanted: Mapping[str, JSON], current: Mapping[str, JSON], asked: ApiRequest) -> None:
    """Whether what a write changes of the status may be changed at its place. Raises Invalid."""
    if asked.subresource not in ("status", "approval"):
        return
    told = []
    for kind in ("Approved", "Denied", "Failed"):
        was, is_now = (_of_type(each, kind) for each in (current, wanted))
        if len(is_now) < len(was):
            told.append(("status.conditions", f"updates may not remove a condition of type {json.dumps(kind)}"))
        elif kind in _DECISIONS and asked.subresource != "approval" and is_now != was:
            done = "add" if len(is_now) > len(was) else "modify"
            told.append(("status.conditions", f"updates may not {done} a condition of type {json.dumps(kind)}"))
    held, given = (lookup(each, "status.certificate") or "" for each in (current, wanted))
    if given != held and asked.subresource == "approval":
        told.append(("status.certificate", "updates may not set certificate content"))
    elif given != held and held:
        told.append(("status.certificate", "updates may not modify existing certificate content"))
    if told:
        causes = [Cause(field, "FieldValueForbidden", f"Forbidden: {text}") for field, text in told]
        raise invalid(asked.resource, asked.name, causes)


def check(
    key: ObjectKey, body: dict[str, JSON], current: Mapping[str, JSON] | None, user: User, allows: Allows
) -> None:
    """
    A planned write, held against what this user may; a new request is stamped with who that is.

    allows: see Authorizer.allows. Raises Forbidden.
    """
    if current is None:
        _check_subject(key, body)
        stamp(body, user)
        return
    decided = any(_of_type(body, kind) != _of_type(current, kind) for kind in _DECISIONS)
    others, before = (
        [each for each in conditions_of(one) if each.get("type") not in _DECISIONS] for one in (body, current)
    )
    signed = others != before or lookup(body, "status.certificate") != lookup(current, "status.certificate")
    signer = str(lookup(current, "spec.signerName") or "")
    for verb, is_done in (("approve", decided), ("sign", signed)):
        if is_done and not _may(user, verb, signer, allows):
            raise _forbidden(key, f"user not permitted to {verb} requests with signerName {json.dumps(signer)}")


def _may(user: User, verb: str, signer: str, allows: Allows) -> bool:
    names = (signer, f"{signer.partition('/')[0]}/*")
    group = CERTIFICATE_SIGNING_REQUESTS.group
    return any(
        allows(user, Attributes(verb=verb, group=group, version="*", resource="signers", name=name))[0]
        for name in names
    )


def _check_subject(key: ObjectKey, body: Mapping[str, JSON]) -> None:
    """Nobody becomes a master by a signature: what is in a certificate cannot be taken back."""
    from componentbase import pki

    if lookup(body, "spec.signerName") == API_CLIENT and MASTERS in pki.read_csr(request_of(body)).organizations:
        raise _forbidden(key, f"use of {API_CLIENT} signer with {MASTERS} group is not allowed")


def _forbidden(key: ObjectKey, text: str) -> Forbidden:
    resource = key.resource
    return Forbidden(
        f'{resource.collection} "{key.name}" is forbidden: {text}',
        kind=resource.plural,
        group=resource.group,
        name=key.name,
    )


def _of_type(body: Mapping[str, JSON], kind: str) -> list[Mapping[str, JSON]]:
    return [each for each in conditions_of(body) if each.get("type") == kind]


def _timed(condition: dict[str, JSON], before: Mapping[JSON, Mapping[str, JSON]], now: str) -> dict[str, JSON]:
    former = before.get(condition.get("type"), {})
    since = former.get("lastTransitionTime") if former.get("status") == condition.get("status") else None
    return condition | {
        "lastUpdateTime": condition.get("lastUpdateTime") or now,
        "lastTransitionTime": condition.get("lastTransitionTime") or since or now,
    }


def _spec_causes(spec: JSON) -> Iterator[Cause]:
    from componentbase import pki

    spec = spec if isinstance(spec, dict) else {}
    try:
        pki.read_csr(_decoded(spec.get("request")))
    except pki.CsrRefused as exc:
        yield _cause("spec.request", exc.reason, "[]byte{...}" if spec.get("request") else "[]byte(nil)")
    usages = spec.get("usages")
    if not isinstance(usages, list) or not usages:
        yield _required("spec.usages", "usages is required")
        usages = []
    for place, usage in enumerate(usages):
        if usage not in USAGES:
            supported = ", ".join(f'"{each}"' for each in sorted(USAGES))
            text = f"Unsupported value: {json.dumps(usage)}: supported values: {supported}"
            yield Cause(f"spec.usages[{place}]", "FieldValueNotSupported", text)
        elif usage in usages[:place]:
            yield Cause(f"spec.usages[{place}]", "FieldValueDuplicate", f"Duplicate value: {json.dumps(usage)}")
    signer = spec.get("signerName")
    if not isinstance(signer, str) or not signer:
        yield _required("spec.signerName", "")
    elif signer == "kubernetes.io/legacy-unknown":
        yield _cause("spec.signerName", "the legacy signerName is not allowed via this API version", json.dumps(signer))
    elif not _SIGNER.fullmatch(signer):
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield _cause("spec.signerName", text, json.dumps(signer))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and (not isinstance(seconds, int) or seconds < MIN_SECONDS):
        text = f"may not specify a duration less than {MIN_SECONDS} seconds (10 minutes)"
        yield _cause("spec.expirationSeconds", text, json.dumps(seconds))


def _condition_causes(conditions: list[Mapping[str, JSON]]) -> Iterator[Cause]:
    seen: set[JSON] = set()
    for place, each in enumerate(conditions):
        where, kind, status = f"status.conditions[{place}]", each.get("type"), each.get("status")
        if not kind:
            yield _required(f"{where}.type", "")
        elif kind in (*_DECISIONS, "Failed") and status != "True":
            text = f'Unsupported value: {json.dumps(status or "")}: supported values: "True"'
            yield Cause(f"{where}.status", "FieldValueNotSupported", text)
        elif not status:
            yield _required(f"{where}.status", "")
        if kind in seen:
            yield Cause(f"{where}.type", "FieldValueDuplicate", f"Duplicate value: {json.dumps(kind)}")
        elif kind in _DECISIONS and seen & {*_DECISIONS}:
            yield _cause(f"{where}.type", "Approved and Denied conditions are mutually exclusive", json.dumps(kind))
        seen.add(kind)


def _required(field: str, text: str) -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {text}" if text else "Required value")


def _cause(field: str, text: str, shown: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {text}")


def _decoded(text: JSON) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return b""


def _is_certificate(text: JSON) -> bool:
    try:
        return bool(ders(_decoded(text)))
    except ValueError:
        return False
