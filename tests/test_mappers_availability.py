"""Whether a device is there, by its availability topics."""

import pytest

from mappers.availability import Availability
from mappers.driver import BadConfig
from mappers.settings import Settings


def availability(*topics: str, **settings: object) -> Availability:
    return Availability(Settings("protocol.configData", settings), topics)


def test_without_a_topic_nothing_speaks_against_it() -> None:
    assert availability().problem() is None


@pytest.mark.parametrize("online", [b"online", b"Online", b'{"state":"online"}', b' {"state":"Online"} \n'])
@pytest.mark.parametrize("offline", [b"offline", b"Offline", b'{"state":"offline"}'])
def test_the_words_of_tasmota_and_zigbee2mqtt_are_understood(online: bytes, offline: bytes) -> None:
    one = availability("a")
    one.hear("a", online)
    assert one.problem() is None
    one.hear("a", offline)
    assert one.problem() == "a says that it is offline"


def test_before_anything_was_heard_it_counts_as_gone() -> None:
    one = availability("a")
    assert one.problem() == "nothing has come on a yet: look at availabilityTopic"
    one.hear("a", b"online")
    one.forget()
    assert one.problem() is not None


def test_behind_a_gateway_both_must_be_there() -> None:
    one = availability("bridge", "lamp")
    one.hear("lamp", b"online")
    assert one.problem() == "nothing has come on bridge yet: look at availabilityTopic"
    assert not one.is_known()
    one.hear("bridge", b'{"state":"online"}')
    assert one.problem() is None
    assert one.is_known()
    one.hear("bridge", b'{"state":"offline"}')
    assert one.problem() == "bridge says that it is offline"


@pytest.mark.parametrize("said", [b"", b"perhaps", b'{"state":[]}', b'{"x":1}', b"{", b"\xff", b"x" * 100_000])
def test_what_is_no_word_counts_as_gone_and_is_told(said: bytes) -> None:
    one = availability("a")
    one.hear("a", said)
    problem = one.problem()
    assert problem is not None
    assert "neither of the words in online and offline" in problem
    assert len(problem) < 200


def test_one_that_says_offline_is_enough_to_know() -> None:
    one = availability("bridge", "lamp")
    one.hear("lamp", b"offline")
    assert one.is_known()
    assert one.problem() == "lamp says that it is offline"


def test_a_device_may_have_words_and_a_place_of_its_own() -> None:
    one = availability("a", online="1", offline="0", availabilityPointer="/up")
    one.hear("a", b'{"up": 1}')
    assert one.problem() is None
    one.hear("a", b"0")
    assert one.problem() == "a says that it is offline"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"online": "x", "offline": "X"}, "online and offline must differ"),
        ({"online": 1}, "online must be a text"),
        ({"availabilityPointer": "a..b"}, "availabilityPointer .*empty name"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        availability("a", **settings)
