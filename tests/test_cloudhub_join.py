"""The join endpoint, asked over real TLS on loopback by a plain HTTP client."""

import asyncio
import contextlib
import datetime
import http.client
import json
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, Invalid
from cloudhub.join import EACH, GUESS_EACH, MAX_BODY_BYTES, check_name
from cloudhub.join import _read as read_request
from cloudhub.tokens import REPEAT_S
from componentbase import pki
from tests.harness.joining import LINK_PORT, JoinableHub, joinable_hub


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub() as hub:
        yield hub


async def ask(hub: JoinableHub, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, dict[str, str]]:
    def blocking() -> tuple[int, bytes, dict[str, str]]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=hub.authority.certificate_pem.decode())
        connection = http.client.HTTPSConnection("127.0.0.1", hub.endpoint.port, context=context, timeout=10)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    return await asyncio.to_thread(blocking)


async def post(hub: JoinableHub, value: object) -> tuple[int, dict[str, Any]]:
    status, body, _ = await ask(hub, "POST", "/v1/join", json.dumps(value).encode())
    answer: dict[str, Any] = json.loads(body)
    return status, answer


def request(token: str, node: str = "edge-1", subject: str | None = None) -> dict[str, Any]:
    _, csr = pki.make_key_and_csr(subject or f"system:node:{node}", "system:nodes")
    return {"node": node, "csr": csr.decode(), "token": token}


async def test_the_ca_is_shown_to_everybody(hub: JoinableHub) -> None:
    status, body, _ = await ask(hub, "GET", "/v1/ca")
    assert (status, body) == (200, hub.authority.certificate_pem)


async def test_a_token_is_traded_for_a_certificate(hub: JoinableHub) -> None:
    status, answer = await post(hub, request(await hub.token()))
    assert status == 200
    assert pki.common_name(answer["certificate"].encode()) == "system:node:edge-1"
    assert answer["ca"].encode() == hub.authority.certificate_pem
    assert answer["node"] == "edge-1"
    assert answer["link"] == {"port": LINK_PORT, "path": "/v1/link"}


async def test_a_node_gets_a_certificate_for_its_own_api(hub: JoinableHub) -> None:
    asked = request(await hub.token())
    _, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    serving = {"csr": csr.decode(), "addresses": ["192.0.2.7"]}
    status, answer = await post(hub, asked | {"serving": serving})
    assert status == 200
    assert pki.common_name(answer["serving"].encode()) == "system:node:edge-1"
    for refused, code in (
        ({"csr": csr.decode(), "addresses": ["hub.example"]}, 400),
        ({"csr": csr.decode(), "addresses": ["192.0.2.7"] * 17}, 400),
        ({"csr": 5, "addresses": []}, 400),
        ("all", 400),
        ({"csr": "é", "addresses": []}, 422),
        ({"csr": request("x", subject="system:node:edge-2")["csr"], "addresses": []}, 422),
    ):
        assert (await post(hub, asked | {"serving": refused}))[0] == code


async def test_a_replayed_request_gives_a_certificate_of_use_to_the_same_key_only(hub: JoinableHub) -> None:
    again = request(await hub.token())
    (_, one), (_, two) = await post(hub, again), await post(hub, again)
    assert one["certificate"] != two["certificate"]
    for answer in (one, two):  # neither goes with another key
        other, _ = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
            load(context, answer["certificate"].encode(), other)


def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    from cloudhub.memoryfile import as_file

    with as_file(certificate + key) as path:
        context.load_cert_chain(path)


async def test_wrong_expired_and_deleted_tokens_are_401(hub: JoinableHub) -> None:
    token = await hub.token()
    wrong = token.replace(token.split(".")[2], "A" * 43)
    assert (await post(hub, request(wrong)))[0] == 401
    hub.now += datetime.timedelta(hours=25)
    status, answer = await post(hub, request(token))
    assert status == 401
    assert "expired" in answer["message"]
    token = await hub.token()
    await hub.tokens.delete(token)
    assert (await post(hub, request(token)))[0] == 401


async def test_a_token_for_another_node_is_403(hub: JoinableHub) -> None:
    token = await hub.token("edge-2")
    assert (await post(hub, request(token)))[0] == 403
    assert (await post(hub, request(token, "edge-2")))[0] == 200


async def test_a_request_for_another_subject_is_422(hub: JoinableHub) -> None:
    status, answer = await post(hub, request(await hub.token(), subject="system:node:edge-2"))
    assert status == 422
    assert "system:node:edge-2" in answer["message"]


@pytest.mark.parametrize("node", ["", "Edge", "-a", "a-", "a..b", "a_b", "a/b", "ä", "a\nb", "x" * 53, "a." * 20 + "."])
async def test_names_that_no_node_can_have_are_422(hub: JoinableHub, node: str) -> None:
    status, answer = await post(hub, {"node": node, "csr": "x", "token": await hub.token()})
    assert status == 422
    assert "node name" in answer["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"{}", b'{"node":1,"csr":"","token":""}', b"[" * 16000, b"\xff\xfe"]
)
async def test_rubbish_is_400(hub: JoinableHub, body: bytes) -> None:
    status, answer, _ = await ask(hub, "POST", "/v1/join", body)
    assert status == 400
    assert json.loads(answer)["kind"] == "Status"


async def test_a_csr_of_rubbish_is_422_but_only_for_who_has_a_token(hub: JoinableHub) -> None:
    for csr in ("rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "ä"):
        assert (await post(hub, {"node": "edge-1", "csr": csr, "token": await hub.token()}))[0] == 422
    assert (await post(hub, {"node": "edge-1", "csr": "rubbish", "token": "none"}))[0] == 401
    assert (await post(hub, {"node": "edge-1", "token": await hub.token()}))[0] == 422


async def test_an_oversized_body_is_413(hub: JoinableHub) -> None:
    status, _, _ = await ask(hub, "POST", "/v1/join", b" " * (MAX_BODY_BYTES + 1))
    assert status == 413


async def test_other_paths_are_404_and_other_methods_405(hub: JoinableHub) -> None:
    assert (await ask(hub, "GET", "/"))[0] == 404
    assert (await ask(hub, "GET", "/v1/join"))[0] == 405
    assert (await ask(hub, "DELETE", "/v1/ca"))[0] == 405


async def test_an_address_that_guesses_must_wait_even_with_a_good_token(hub: JoinableHub) -> None:
    good, guesses = await hub.token(), 0
    while (answer := await post(hub, request("fl1.wrong")))[0] == 401:
        guesses += 1
    assert answer[0] == 429
    assert guesses == EACH.burst // (1 + GUESS_EACH) + 1
    status, body, headers = await ask(hub, "POST", "/v1/join", json.dumps(request(good)).encode())
    assert status == 429
    assert "too many requests to join" in json.loads(body)["message"]
    assert (await ask(hub, "POST", "/v1/check", json.dumps(request(good)).encode()))[0] == 429
    hub.monotonic_s += int(headers["retry-after"])
    assert (await post(hub, request(good)))[0] == 200


async def test_tokens_that_cannot_be_read_are_503_and_no_failure(
    hub: JoinableHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await hub.token()

    async def no_answer(*_: object) -> None:
        raise ApiError("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(hub.objects, "get", no_answer)
        for _ in range(20):
            assert (await post(hub, request(token)))[0] == 503
    assert (await post(hub, request(token)))[0] == 200


async def test_neither_token_nor_csr_is_logged(hub: JoinableHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await hub.token()
    await post(hub, request(token))
    await hub.tokens.delete(token)
    await post(hub, request(token))
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "node joined" in logged
    assert "join refused" in logged
    assert token.split(".")[2] not in logged
    assert "CERTIFICATE" not in logged


# ---- single use, names that exist, and what is only asked


async def test_a_token_for_a_single_use_is_used_by_one_key(hub: JoinableHub) -> None:
    token = await hub.token(is_single_use=True)
    first = request(token)
    assert (await post(hub, first))[0] == 200
    assert (await post(hub, first))[0] == 200  # the answer may have been lost
    status, answer = await post(hub, request(token, "edge-2"))
    assert status == 401
    assert "single use" in answer["message"]
    hub.now += datetime.timedelta(seconds=REPEAT_S)
    assert (await post(hub, first))[0] == 401


async def test_a_request_that_is_refused_uses_nothing_up(hub: JoinableHub) -> None:
    await post(hub, request(await hub.token()))
    token = await hub.token(is_single_use=True)
    assert (await post(hub, request(token)))[0] == 409
    assert (await post(hub, request(token, "edge-2", subject="system:node:edge-1")))[0] == 422
    assert (await post(hub, {"node": "edge-2", "csr": "rubbish", "token": token}))[0] == 422
    assert (await post(hub, request(token, "edge-2")))[0] == 200


async def test_of_many_that_use_a_token_at_once_one_gets_a_certificate(hub: JoinableHub) -> None:
    token = await hub.token(is_single_use=True)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(post(hub, request(token, f"edge-{n}")), name=f"join[{n}]") for n in range(8)]
    assert sorted(task.result()[0] for task in asked) == [200] + [401] * 7


async def test_a_name_that_exists_takes_a_token_that_may_replace(
    hub: JoinableHub, caplog: pytest.LogCaptureFixture
) -> None:
    first = request(await hub.token())
    assert (await post(hub, first))[0] == 200
    status, answer = await post(hub, request(await hub.token()))
    assert (status, answer["reason"]) == (409, "AlreadyExists")
    assert "cloudcore token create --replace --nodes edge-1" in answer["message"]
    assert (await post(hub, first))[0] == 200  # it is who has the name
    assert "node replaced" not in caplog.text
    assert (await post(hub, request(await hub.token(may_replace=True))))[0] == 200
    assert "node replaced" in caplog.text
    assert (await post(hub, first))[0] == 409  # not any more


async def test_a_check_tells_what_a_join_would_be_told_and_uses_nothing(hub: JoinableHub) -> None:
    async def check(token: str, node: str = "edge-1") -> tuple[int, dict[str, Any]]:
        status, body, _ = await ask(hub, "POST", "/v1/check", json.dumps({"node": node, "token": token}).encode())
        answer: dict[str, Any] = json.loads(body)
        return status, answer

    token = await hub.token("edge-*", is_single_use=True)
    before = json.dumps(list(hub.objects.kept.values()))
    status, answer = await check(token)
    assert (status, answer["node"], answer["link"]["port"]) == (200, "edge-1", LINK_PORT)
    assert (await check(token, "rack-1"))[0] == 403
    assert (await check("fl1.wrong"))[0] == 401
    assert (await check(token, "Edge"))[0] == 422
    assert json.dumps(list(hub.objects.kept.values())) == before
    assert (await post(hub, request(token)))[0] == 200
    assert (await check(token, "edge-2"))[0] == 401  # used up
    assert (await check(await hub.token()))[0] == 409
    assert (await check(await hub.token(may_replace=True)))[0] == 200


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=20,  # the usual hundred costs thirty times as much to make, and what is read of it is the top
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    right = {"node": "n", "csr": "c", "token": "t", "serving": value}
    for body in (value, {"node": value, "csr": value, "token": value}, right):
        with contextlib.suppress(BadRequest, Invalid):
            read_request(json.dumps(body).encode())


def test_a_name_too_long_for_a_certificate_says_so() -> None:
    with pytest.raises(Invalid, match=r"1 to 52 characters, .*this one has 53"):
        check_name("x" * 53)
