"""What holds for CertificateSigningRequests, asked of the embedded apiserver as its users."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Forbidden, Invalid
from apiserver.messages import Request
from apiserver.signing import API_CLIENT, KUBELET_CLIENT, causes_of, stamp
from apiserver.users import User
from componentbase import pki
from tests.harness.cluster import RBAC, Cluster, cluster

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_, NODE_CSR = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
APPROVED = {"type": "Approved", "status": "True", "reason": "Test"}


def request(name: str = "a", csr: bytes = NODE_CSR, signer: str = KUBELET_CLIENT, **spec: Any) -> dict[str, Any]:
    wanted = {"request": base64.b64encode(csr).decode(), "signerName": signer, "usages": ["client auth"]}
    return {"metadata": {"name": name}, "spec": wanted | spec}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    """jane may do everything with requests, and nothing with signers."""
    async with cluster(tmp_path, "jane") as made:
        rule = {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests", "*/approval"]}
        rule["resources"] += ["certificatesigningrequests/approval", "certificatesigningrequests/status"]
        await made("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "csr"}, "rules": [rule | {"verbs": ["*"]}]})
        await made.bind("csr", "User", "jane")
        yield made


async def may(api: Cluster, verb: str, *signers: str) -> None:
    rule = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb], "resourceNames": signers}
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": verb}, "rules": [rule]})
    await api.bind(verb, "User", "jane")


async def test_the_server_writes_who_asks(api: Cluster) -> None:
    made = await api("POST", CSRS, request(username="root", groups=["system:masters"], uid="0"), token="jane")
    assert {**made["spec"], "request": ""} == request()["spec"] | {
        "request": "",
        "username": "jane",
        "groups": ["system:authenticated"],
    }
    assert "status" not in made


def test_what_is_known_of_the_asker_is_all_written_and_nothing_else() -> None:
    body: dict[str, Any] = {"spec": {"extra": {"a": ["b"]}, "usages": []}}
    stamp(body, User("u", ("g",), "1", {"x": ("y",)}))
    assert body["spec"] == {"usages": [], "username": "u", "uid": "1", "groups": ["g"], "extra": {"x": ["y"]}}


async def test_what_was_asked_for_stays(api: Cluster) -> None:
    made = await api("POST", CSRS, request(), token="jane")
    changed = made | {"spec": made["spec"] | {"signerName": API_CLIENT, "username": "root"}}
    for method, target, body in (
        ("PUT", f"{CSRS}/a", changed),
        ("PATCH", f"{CSRS}/a", {"spec": {"usages": ["server auth"]}}),
        ("PUT", f"{CSRS}/a/approval", changed),
    ):
        assert (await api(method, target, body))["spec"] == made["spec"]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"request": ""}, "spec.request: Invalid value: []byte(nil): it is not a certificate signing request"),
        ({"usages": []}, "spec.usages: Required value: usages is required"),
        ({"usages": ["fly"]}, 'spec.usages[0]: Unsupported value: "fly": supported values: "any", "cert sign", '),
        ({"usages": ["any", "any"]}, 'spec.usages[1]: Duplicate value: "any"'),
        ({"signerName": ""}, "spec.signerName: Required value"),
        (
            {"signerName": "signer"},
            'spec.signerName: Invalid value: "signer": must be a fully qualified domain',
        ),
        (
            {"signerName": "kubernetes.io/legacy-unknown"},
            'spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed',
        ),
        (
            {"expirationSeconds": 599},
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less",
        ),
    ],
)
async def test_what_cannot_be_is_refused_in_the_words_of_kubernetes(
    api: Cluster, spec: dict[str, Any], told: str
) -> None:
    refused = await api.refused("POST", CSRS, request(**spec), token="jane")
    assert isinstance(refused, Invalid)
    assert told in str(refused)


async def test_nobody_becomes_a_master_by_a_signature(api: Cluster) -> None:
    _, csr = pki.make_key_and_csr("me", "system:masters")
    refused = await api.refused("POST", CSRS, request(csr=csr, signer=API_CLIENT))
    assert isinstance(refused, Forbidden)
    assert "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed" in str(refused)


async def test_who_approves_and_who_signs_needs_the_signer_too(api: Cluster) -> None:
    made = await api("POST", CSRS, request(), token="jane")
    approved = made | {"status": {"conditions": [APPROVED]}}
    refused = await api.refused("PUT", f"{CSRS}/a/approval", approved, token="jane")
    assert str(refused) == (
        'certificatesigningrequests.certificates.k8s.io "a" is forbidden: user not permitted to approve requests '
        f'with signerName "{KUBELET_CLIENT}"'
    )
    await may(api, "approve", KUBELET_CLIENT)
    told = await api("PUT", f"{CSRS}/a/approval", approved, token="jane")
    condition = told["status"]["conditions"][0]
    assert condition["lastUpdateTime"] == condition["lastTransitionTime"] >= made["metadata"]["creationTimestamp"]
    certificate = base64.b64encode(pki.create_ca("x", 1).cert_pem).decode()
    status = {"status": {"certificate": certificate}}
    assert "not permitted to sign" in str(await api.refused("PATCH", f"{CSRS}/a/status", status, token="jane"))
    await may(api, "sign", "kubernetes.io/*")
    assert (await api("PATCH", f"{CSRS}/a/status", status, token="jane"))["status"]["certificate"] == certificate


async def test_each_part_of_the_answer_has_its_place_and_stays(api: Cluster) -> None:
    await api("POST", CSRS, request())
    certificate = base64.b64encode(pki.create_ca("x", 1).cert_pem).decode()
    approval, status = f"{CSRS}/a/approval", f"{CSRS}/a/status"

    async def refused(target: str, **wanted: Any) -> str:
        return str(await api.refused("PATCH", target, {"status": wanted}))

    told = await refused(status, conditions=[APPROVED])
    assert 'status.conditions: Forbidden: updates may not add a condition of type "Approved"' in told
    assert "updates may not set certificate content" in await refused(approval, certificate=certificate)
    assert 'supported values: "True"' in await refused(approval, conditions=[APPROVED | {"status": "False"}])
    assert "mutually exclusive" in await refused(approval, conditions=[APPROVED, APPROVED | {"type": "Denied"}])
    await api("PATCH", approval, {"status": {"conditions": [APPROVED]}})
    assert 'may not remove a condition of type "Approved"' in await refused(approval, conditions=[])
    assert "must contain at least one CERTIFICATE" in await refused(status, certificate="aGVsbG8=")
    await api("PATCH", status, {"status": {"certificate": certificate}})
    assert "may not modify existing certificate" in await refused(status, certificate=None)
    assert (await api("PATCH", f"{CSRS}/a", {"status": None}))["status"]["certificate"] == certificate
    assert (await api("GET", approval))["status"]["conditions"][0]["type"] == "Approved"


async def test_a_request_that_is_applied_is_stamped_too(api: Cluster) -> None:
    body = request(username="root") | {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    target = f"{CSRS}/a?fieldManager=me"
    headers = {"authorization": "Bearer jane", "content-type": "application/apply-patch+yaml"}
    made = await api.ask(Request("PATCH", target, headers, json.dumps(body).encode()))
    assert made["spec"]["username"] == "jane"


def test_causes_are_found_in_any_shape() -> None:
    shapes: tuple[Any, ...] = (None, [], "x", {"request": 5, "usages": "x", "signerName": 7, "expirationSeconds": "1h"})
    for spec in shapes:
        fields = {cause.field for cause in causes_of({"spec": spec}, None, "now")}
        assert {"spec.request", "spec.usages", "spec.signerName"} <= fields
    assert causes_of({"spec": None, "status": {"conditions": "x"}}, {"spec": None}, "now") == []


async def test_requests_are_shown_as_kubectl_shows_them(api: Cluster) -> None:
    await api("POST", CSRS, request(expirationSeconds=3600))
    await api("PATCH", f"{CSRS}/a/approval", {"status": {"conditions": [APPROVED]}})
    table = await api("GET", CSRS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    columns = [column["name"] for column in table["columnDefinitions"]]
    assert columns == ["Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"]
    assert table["rows"][0]["cells"][2:] == [KUBELET_CLIENT, "kubernetes-admin", "60m", "Approved"]
    assert not (await api("GET", f"{CSRS}?fieldSelector=spec.signerName%3Dexample.com/x"))["items"]
