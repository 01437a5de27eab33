"""The signers of the embedded apiserver, beside a real storage and the real way in."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.objects import from_json
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS
from apiserver import signer
from apiserver.signing import API_CLIENT
from componentbase import pki
from componentbase.certificates import validity
from tests.harness.cluster import Cluster, cluster
from tests.test_apiserver_signing import APPROVED, CSRS, NODE_CSR, request

CA = pki.create_ca("clients", 1)
NODE = ["digital signature", "client auth"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made, asyncio.TaskGroup() as group:
        signing = group.create_task(signer.sign(made.storage, CA), name="signer")
        yield made
        signing.cancel()


async def settled(api: Cluster, name: str = "a") -> dict[str, Any]:
    """Its status, once the signer has decided."""
    async with asyncio.timeout(5):
        while True:
            status: dict[str, Any] = (await api("GET", f"{CSRS}/{name}")).get("status") or {}
            if "certificate" in status or len(status.get("conditions", ())) > 1:
                return status
            await asyncio.sleep(0.01)


async def approve(api: Cluster, name: str = "a") -> None:
    await api("PATCH", f"{CSRS}/{name}/approval", {"status": {"conditions": [APPROVED]}})


async def test_who_is_approved_gets_what_was_asked_for(api: Cluster) -> None:
    await api("POST", CSRS, request(usages=NODE, expirationSeconds=700))
    await approve(api)
    certificate = base64.b64decode((await settled(api))["certificate"])
    assert pki.subject_of(certificate) == ("system:node:edge-1", ("system:nodes",))
    assert pki.key_id(certificate) == pki.read_csr(NODE_CSR).key
    assert pki.leads_to(certificate, CA.cert_pem)
    assert 690 < validity(certificate).lifetime_s <= 701


async def test_what_was_approved_before_the_start_is_signed(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made("POST", CSRS, request(usages=NODE))
        await approve(made)
        async with asyncio.TaskGroup() as group:
            signing = group.create_task(signer.sign(made.storage, CA), name="signer")
            assert "certificate" in await settled(made)
            signing.cancel()


async def test_nobody_else_is_signed(api: Cluster) -> None:
    await api("POST", CSRS, request("waiting", usages=NODE))
    await api("POST", CSRS, request("other", signer="example.com/own", usages=NODE))
    await approve(api, "other")
    await api("POST", CSRS, request("denied", usages=NODE))
    denied = {"status": {"conditions": [APPROVED | {"type": "Denied"}]}}
    await api("PATCH", f"{CSRS}/denied/approval", denied)
    await api("POST", CSRS, request("last", usages=NODE))
    await approve(api, "last")
    await settled(api, "last")
    for name in ("waiting", "other", "denied"):
        assert "certificate" not in (await api("GET", f"{CSRS}/{name}")).get("status", {})


async def test_what_is_not_signed_says_why(api: Cluster) -> None:
    await api("POST", CSRS, request(usages=["client auth", "server auth"]))
    await approve(api)
    failed = (await settled(api))["conditions"][1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SignerValidationFailure")
    assert failed["message"] == "usages did not match ['client auth', 'digital signature']"


@pytest.mark.parametrize(
    ("subject", "signed_by", "usages", "told"),
    [
        (("system:node:a", "admins"), None, NODE, "subject organization is not system:nodes"),
        (("a", "system:nodes"), None, NODE, "subject common name does not begin with system:node:"),
        (("a", "b"), API_CLIENT, ["server auth"], "invalid usage for client certificate: server auth"),
        (("a", "b"), API_CLIENT, ["digital signature"], "missing required usage for client certificate: client auth"),
    ],
)
def test_a_signer_signs_what_it_is_for(
    subject: tuple[str, str], signed_by: str | None, usages: list[str], told: str
) -> None:
    body = request(csr=pki.make_key_and_csr(*subject)[1], usages=usages)
    body["spec"] |= {"signerName": signed_by} if signed_by else {}
    with pytest.raises(pki.CsrRefused, match=told):
        signer.certificate_for(body, CA)


def test_what_is_done_with_goes_after_an_hour_and_what_waits_after_a_day() -> None:
    at, hour = "2026-01-01T00:00:00Z", 3600.0

    def is_old(age_s: float, *kinds: str, certificate: str = "") -> bool:
        conditions = [{"type": kind, "lastUpdateTime": at} for kind in kinds]
        body = request() | {"status": {"conditions": conditions, "certificate": certificate}}
        body["metadata"] |= {"creationTimestamp": at, "uid": "u", "resourceVersion": "1"}
        return signer.is_old(from_json(CERTIFICATE_SIGNING_REQUESTS, body), 1767225600 + age_s)

    for kinds, certificate in ((("Denied",), ""), (("Approved", "Failed"), ""), (("Approved",), "x")):
        assert not is_old(hour - 1, *kinds, certificate=certificate)
        assert is_old(hour + 1, *kinds, certificate=certificate)
    assert not is_old(24 * hour - 1)
    assert is_old(24 * hour + 1)
    assert not is_old(48 * hour, "Approved"), "it is to be signed"


async def test_the_cas_of_clients_are_published_and_brought_up_to_date(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        other = pki.create_ca("other", 1).cert_pem
        target = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        for cas in (CA.cert_pem, CA.cert_pem + other):
            await signer.publish(made.storage, cas)
            assert (await made("GET", target))["data"] == {"client-ca-file": cas.decode()}
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=cas.decode())
