"""The next certificate of a node, against a real endpoint; and every place where this process may be killed."""

import asyncio
import json
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from apimachinery.keys import Node
from cloudhub.roster import Roster
from componentbase import pki
from componentbase.certificates import fingerprints
from componentbase.endpoints import Endpoint
from edgehub import renewing
from edgehub.join import join
from edgehub.joinhub import Hub, NotReachable, NotTrusted
from edgehub.renewal import READY, STAGED, settle
from edgehub.renewing import prepare
from tests.harness.joining import JoinableHub, joinable_hub
from tests.harness.site import ROOT

EDGE = Node("edge-1")


class Killed(BaseException):
    """As if by kill -9: nothing of ours catches it."""


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub() as hub:
        yield hub


@pytest.fixture
async def home(hub: JoinableHub, tmp_path: Path) -> Path:
    home = tmp_path / "edge"
    await asyncio.to_thread(join, hub.endpoint, await hub.token(), EDGE, home, lambda _: "")
    return home


async def renew(hub: JoinableHub, home: Path, *, at_once: bool = True) -> bool:
    return await asyncio.to_thread(prepare, home, EDGE, hub.endpoint, at_once=at_once)


def contents(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "pki").iterdir()}


def is_whole(home: Path) -> None:
    """Raises where keys and certificates do not belong together, or were not signed by what is trusted."""
    for name in ("edge", "api"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(home / "pki" / f"{name}.crt", home / "pki" / f"{name}.key")


async def test_nothing_is_done_before_it_is_time_and_all_is_new_when_asked(hub: JoinableHub, home: Path) -> None:
    (home / "pki" / "mine.crt").write_text("somebody else's")
    before = contents(home)
    assert not await renew(hub, home, at_once=False)
    assert not (home / STAGED).exists()
    assert await renew(hub, home)
    assert contents(home) == before, "what is in use is not touched"
    assert stat.S_IMODE((home / STAGED).stat().st_mode) == 0o700
    assert stat.S_IMODE((home / STAGED / "pki" / "edge.key").stat().st_mode) == 0o600
    assert await renew(hub, home), "it is there already"
    assert settle(home)
    after = contents(home)
    assert {name for name in after if after[name] == before[name]} == {"ca.crt", "mine.crt"}
    is_whole(home)
    assert (await Roster(hub.objects).identities())[EDGE].is_confirmed


async def test_it_is_time_before_two_thirds_of_its_life(tmp_path: Path) -> None:
    async with joinable_hub(node_s=2.0) as hub:
        home = tmp_path / "edge"
        await asyncio.to_thread(join, hub.endpoint, await hub.token(), EDGE, home, lambda _: "")
        by = asyncio.get_running_loop().time() + 5.0
        while not await renew(hub, home, at_once=False):
            assert asyncio.get_running_loop().time() < by
        assert settle(home)
        is_whole(home)


@pytest.mark.parametrize(
    ("place", "method", "is_after"),
    [
        (Hub, "renew", False),
        (Hub, "renew", True),
        (Hub, "confirm", False),
        (Hub, "confirm", True),
        (renewing, "_write", True),
        (renewing, "make_keys", True),
        (renewing, "replaces", False),
    ],
)
async def test_killed_anywhere_the_next_run_gets_there(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch, place: object, method: str, *, is_after: bool
) -> None:
    real: Callable[..., object] = getattr(place, method)

    def dies(*arguments: object) -> object:
        if is_after:
            real(*arguments)
        raise Killed

    before = contents(home)
    with monkeypatch.context() as patched:
        patched.setattr(place, method, dies)
        with pytest.raises(Killed):
            await renew(hub, home)
    assert not settle(home)
    assert contents(home) == before, "the old one is what there is"
    is_begun = (home / STAGED / renewing.ASKED_WITH).exists()  # then the old one may count no more
    assert await renew(hub, home, at_once=not is_begun)
    assert settle(home)
    is_whole(home)
    assert await renew(hub, home), "and it renews again"


async def test_an_identity_that_came_meanwhile_is_not_overwritten(
    hub: JoinableHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This directory is another node's by the time that the answer to an earlier request is used."""
    with monkeypatch.context() as patched:
        patched.setattr(renewing, "replaces", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            await renew(hub, home)
    other = Node("edge-2")
    await asyncio.to_thread(join, hub.endpoint, await hub.token(), other, home, lambda _: "", replace=True)
    assert await asyncio.to_thread(prepare, home, other, hub.endpoint, at_once=True)
    assert settle(home)
    assert pki.common_name(contents(home)["edge.crt"]) == "system:node:edge-2"


async def test_another_ca_is_reason_enough_and_so_is_one_less(hub: JoinableHub, home: Path) -> None:
    for change, known in ((hub.rotate, 2), (hub.finish, 1)):
        await change()
        assert await renew(hub, home, at_once=False)
        assert settle(home)
        assert len(fingerprints(contents(home)["ca.crt"])) == known
        is_whole(home)
        assert not await renew(hub, home, at_once=False)


async def test_who_renewed_before_the_second_ca_signed_renews_once_more(hub: JoinableHub, home: Path) -> None:
    await hub.rotate(timedelta(minutes=2))
    roster, pins = Roster(hub.objects), []
    for _ in range(2):
        assert await renew(hub, home, at_once=False)
        assert settle(home)
        assert not await renew(hub, home, at_once=False)
        pins.append((await roster.identities())[EDGE].ca)
        hub.now += timedelta(minutes=3)
    assert pins == fingerprints(contents(home)["ca.crt"])[::-1]


async def test_who_slept_through_a_whole_change_does_not_trust_what_is_there_now(hub: JoinableHub, home: Path) -> None:
    await hub.rotate()
    await hub.finish()
    with pytest.raises(NotTrusted):
        await renew(hub, home)


async def test_a_ca_that_only_this_hub_has_dropped_is_named(hub: JoinableHub, home: Path) -> None:
    """It verifies the hub, for it knows both; and is itself not verified."""
    await hub.rotate()
    bundle = hub.authority.certificate_pem
    await hub.finish()
    (home / "pki" / "ca.crt").write_bytes(bundle)
    with pytest.raises((NotTrusted, NotReachable)) as caught:
        await renew(hub, home)
    if isinstance(caught.value, NotTrusted):  # else the connection was reset before the alert was read
        assert "join again" in str(caught.value)


async def test_what_goes_wrong_is_told_as_an_outcome(hub: JoinableHub, home: Path, free_port: int) -> None:
    def outcome(cloud: Endpoint, *more: str) -> dict[str, object]:
        command = [sys.executable, "-m", "edgehub.renewing", str(home), EDGE, str(cloud), "1.3", *more]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
        told: dict[str, object] = json.loads(answer.stdout)
        return told

    assert (await asyncio.to_thread(outcome, hub.endpoint))["state"] == "current"
    gone = await asyncio.to_thread(outcome, Endpoint("127.0.0.1", free_port))
    assert gone["state"] == "failed"
    assert "check cloud.join" in str(gone["text"])
    token = await hub.token(may_replace=True)
    await asyncio.to_thread(join, hub.endpoint, token, EDGE, home.parent / "other", lambda _: "")
    refused = await asyncio.to_thread(outcome, hub.endpoint, "--now")
    assert refused["state"] == "refused"
    assert "another key has the name edge-1" in str(refused["text"])
    assert not (home / STAGED / READY).exists()
