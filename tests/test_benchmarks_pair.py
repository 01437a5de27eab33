"""A hub under a replayed watch and a swarm, over mutual TLS: what every family that needs them asks of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pair import Pair

NODES, EVERYWHERE, PODS = 3, 2, 6


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pki: Path = tmp_path_factory.mktemp("pair") / "pki"
    with Pair(NODES, pki=pki, everywhere=EVERYWHERE, pods=PODS) as made:
        yield made


@pytest.mark.parametrize(
    ("command", "frames", "times"),
    [
        ("fanout 3", 3 * NODES, 3),
        ("distinct 2", 2 * NODES, 2),
        ("shared 500 4", 4 * NODES, 4 * NODES),
        ("own 500 7", 7, 7),
    ],
)
def test_every_change_is_acknowledged_and_timed(pair: Pair, command: str, frames: int, times: int) -> None:
    answer = pair.hub.ask(command)
    assert answer["frames"] == frames
    assert len(answer["milliseconds"]) == times
    assert all(each > 0 for each in answer["milliseconds"])
    assert answer["processor_s"] > 0
    assert pair.swarm.ask("")["refused"] == 0


def test_nodes_that_are_cut_off_come_back_and_are_sent_no_objects(pair: Pair) -> None:
    answer = pair.hub.ask("drop")
    assert answer["push_bytes"] == 0
    assert answer["up"] > 500, "the handshake with a certificate is among them"
    assert pair.swarm.ask("")["synced"] == NODES


def test_a_hub_that_was_killed_is_found_again_on_its_port(pair: Pair) -> None:
    port = pair.port
    pair.hub.kill()
    pair.start_hub()
    assert pair.port == port
    pair.hub.ask(f"wait {NODES}")
    facts = pair.swarm.ask("")
    assert (facts["connected"], facts["synced"]) == (NODES, NODES)
    assert pair.hub.ask("memory")["resident"] >= pair.alone_mb > pair.empty_mb / 2
