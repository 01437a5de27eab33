"""Certificates that are replaced while everything goes on, as real processes with lives of seconds."""

import argparse
import asyncio
import contextlib
import io
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest

from apimachinery.errors import ApiError
from apimachinery.keys import Node
from cloudhub import cacommand, credentials, tokencommand
from cloudhub.apiclient import ObjectsByName
from componentbase import config
from componentbase.certificates import fingerprints, validity
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError
from edgecore.settings import CloudConfig, EdgeConfig
from edgehub.join import join as join_here
from edgehub.joinhub import NotTrusted
from tests.harness.mosquitto import free_port
from tests.harness.site import Site

SHORT, LONG = 8, 30  # seconds of life: too short for a rotation, too long for a test that waits for two thirds


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two replicas, which differ in how long the certificates live that they sign."""
    with Site(tmp_path_factory.mktemp("rotation")) as site:
        start_hub(site, "cloud", LONG)
        site.ports |= {"short-link": free_port(), "short-join": free_port()}
        start_hub(site, "short", SHORT, link=site.ports["short-link"], join=site.ports["short-join"])
        yield site


def start_hub(site: Site, name: str, seconds: int, **ports: int) -> None:
    file = site.directory / f"{name}.yaml"
    file.write_text(f"join:\n  certificateSeconds: {seconds}\n  reloadSeconds: 0.3\n")
    site.start_cloud(name, flags=("--config", str(file)), **ports)


def join(site: Site, node: str, token: str, *, hub: str = "", home: str = "") -> None:
    """As `edgecore join` does, without the start of a command."""
    cloud = Endpoint("127.0.0.1", site.ports[f"{hub}-join" if hub else "join"])
    join_here(
        cloud,
        token,
        Node(node),
        site.directory / (home or node),
        lambda joined: config.dump(EdgeConfig(node=joined.node, cloud=CloudConfig(link=joined.link, join=cloud))),
    )


def said(site: Site, command: ModuleType, *words: str) -> str:
    """What `cloudcore ca` or `cloudcore token` prints or refuses, without the start of a command."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(words)

    async def act() -> None:
        async with credentials.client(site.kubeconfig) as client:
            await command.act(args, ObjectsByName(client))

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            asyncio.run(act())
        except (ApiError, CommandError) as exc:
            return str(exc)
    return printed.getvalue().strip()


def token(site: Site, *flags: str) -> str:
    return said(site, tokencommand, "token", "create", *flags)


def ca(site: Site, *words: str) -> str:
    return said(site, cacommand, "ca", *words)


def pem(site: Site, node: str, name: str = "edge.crt") -> bytes:
    return (site.directory / node / "pki" / name).read_bytes()


def shown_by_api(site: Site, node: str) -> bytes:
    """What a client of the local API is shown, verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.directory / node / "pki" / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", site.ports[f"{node}-api"]), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"").encode()


def test_a_node_renews_while_it_is_linked_and_comes_back_after_its_certificate_has_lapsed(site: Site) -> None:
    join(site, "renews", token(site), hub="short")
    first, key = pem(site, "renews"), pem(site, "renews", "edge.key")
    edge = site.start_edge("renews", flags=("--api-tls",))
    site.until(lambda: pem(site, "renews") != first, "the certificate is renewed", edge)
    site.until(lambda: not (site.directory / "renews" / ".renewing").exists(), "it is in place", edge)
    assert pem(site, "renews", "edge.key") != key
    assert (site.directory / "renews" / "pki" / "edge.key").stat().st_mode & 0o777 == 0o600
    site.until(lambda: shown_by_api(site, "renews").split() == pem(site, "renews", "api.crt").split(), "api", edge)
    facts = site.ask("edgecore", "renews")
    assert (facts["inSync"], facts["failures"], facts["certificateProblem"]) == (True, 0, "")
    assert site.metrics("cloudcore", "short")["hub_sessions_total"] == 1, "the connection went on"
    assert -1 < site.metrics("edgecore", "renews")["edge_certificate_seconds"] <= SHORT

    edge.kill()
    last = pem(site, "renews")
    site.until(lambda: has_lapsed(last), "it lapses")
    again = site.start_edge("renews", flags=("--api-tls",))
    assert pem(site, "renews") != last
    assert "certificate renewed" in again.log.read_text()
    assert re.search(r"certificate renewed.*\brenews\b.*late_s=[1-9]", site.processes["short"].log.read_text())
    again.stop()


def has_lapsed(certificate: bytes) -> bool:
    return datetime.now(UTC) > validity(certificate).lapses + timedelta(seconds=1)


def test_a_machine_that_was_replaced_renews_nothing_and_says_what_to_do(site: Site) -> None:
    join(site, "twice", token(site), hub="short")
    join(site, "twice", token(site, "--replace", "--nodes", "twice"), hub="short", home="twice-2")
    answer = site.run("edgecore", "renew", "--data-dir", str(site.directory / "twice"), check=False)
    assert answer.returncode == 1
    assert "another key has the name twice by now" in answer.stderr
    told = site.run("edgecore", "renew", "--data-dir", str(site.directory / "twice-2")).stdout
    assert "twice has a certificate until 20" in told


def test_a_ca_is_replaced_with_one_node_linked_and_another_away(site: Site) -> None:
    before = token(site)
    for node in ("stays", "away"):
        join(site, node, before)
    edge = site.start_edge("stays")
    first_ca = fingerprints(pem(site, "stays", "ca.crt"))
    assert "no rotation to finish" in ca(site, "rotate", "--finish")

    assert "fairlead-ca-2 is trusted by hubs from now on" in ca(site, "rotate", "--after", "3s")
    assert "a rotation is under way" in ca(site, "rotate")
    site.until(lambda: len(fingerprints(pem(site, "stays", "ca.crt"))) == 2, "the node knows both", edge)
    site.until(lambda: "stays" not in needing(site), "it has a certificate of the second", edge)
    assert "away" in needing(site)
    assert "no certificate of fairlead-ca-2 yet" in ca(site, "rotate", "--finish")
    # Either pin lets in, and what is shown is verified by it.
    join(site, "by-the-first", before)
    join(site, "by-the-second", token(site))
    away = site.start_edge("away")
    # Those of other tests have gone, and may come back.
    site.until(lambda: not {"stays", "away", "by-the-first", "by-the-second"} & needing(site), "all others have", away)
    assert site.metrics("cloudcore", "cloud")["hub_sessions_total"] == 2, "nobody lost his connection"
    forced = bool(needing(site))
    assert "fairlead-ca is dropped" in ca(site, "rotate", "--finish", *(["--force"] if forced else []))

    site.until(lambda: len(fingerprints(pem(site, "stays", "ca.crt"))) == 1, "the node has forgotten it, too", edge)
    assert not set(first_ca) & set(fingerprints(pem(site, "stays", "ca.crt")))
    site.run("edgecore", "resync", "--data-dir", str(site.directory / "stays"))
    sessions = "hub_sessions_total"
    site.until(lambda: site.metrics("cloudcore", "cloud")[sessions] == 3, "it dials anew", edge)
    site.until(lambda: site.ask("edgecore", "stays").get("inSync"), "it is in sync", edge)
    with pytest.raises(NotTrusted, match="is not the one this token was made for"):
        join(site, "late", before)


def needing(site: Site) -> set[str]:
    """Who needs the first CA still."""
    last = ca(site, "list").splitlines()[-1]
    return set() if last.startswith("nobody") else set(last.partition(": ")[2].split(", "))
