"""What the demo remembers, and the ports it finds."""

import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from demo.state import FILE, Ports, State, free_ports


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = State(Ports(mqtt=4242), "uid", joined_link=10000, has_devices=True)
    state.save(tmp_path)
    assert State.load(tmp_path) == state


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"ports":{}}', '{"ports":{"apiserver":"x"},"joined_link":1,"has_devices":true}']
)
def test_rubbish_is_a_first_start(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert State.load(tmp_path) == State()


def test_in_another_cluster_everything_is_still_to_be_done() -> None:
    state = State(Ports(mqtt=4242), "uid", joined_link=10000, has_devices=True)
    state.meet("uid")
    assert (state.joined_link, state.has_devices) == (10000, True)
    state.meet("another")
    assert state == State(Ports(mqtt=4242), "another")


def test_nothing_is_a_first_start(tmp_path: Path) -> None:
    assert State.load(tmp_path) == State()


def test_a_taken_port_is_replaced_and_a_free_one_kept() -> None:
    free = _some_free()
    with socket.create_server(("", free.link)):  # on every address
        found = free_ports(free)
    assert found.link != free.link
    assert asdict(found) | {"link": 0} == asdict(free) | {"link": 0}


def test_no_port_is_given_out_twice() -> None:
    free = _some_free()
    with socket.create_server(("127.0.0.1", free.mqtt)):
        found = free_ports(Ports(*[free.mqtt] * 5))
    assert len(set(asdict(found).values())) == 5


def _some_free() -> Ports:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    ports = Ports(*(listener.getsockname()[1] for listener in listeners))
    for listener in listeners:
        listener.close()
    return ports
