"""One node's large changes on their way."""

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS
from cloudhub.transfers import Transfers
from cloudhub.wires import Wire
from link.frames import CHUNK_BYTES, MAX_TRANSFERS, MAX_TRANSFERS_BYTES, Part

VERSION = ObjectVersion("u", "r")


def key(name: str) -> ObjectKey:
    return ObjectKey(CONFIG_MAPS, "d", name)


def begin(transfers: Transfers, name: str, size: int = CHUNK_BYTES + 1) -> None:
    transfers.begin(key(name), VERSION, None, Wire(b"x" * size, size, size))


def sent(transfers: Transfers, first_chunk: int = 1) -> int:
    """Send all parts that there are; the number of the last chunk."""
    chunk = first_chunk - 1
    while transfers.has_next:
        found = transfers.next()
        chunk += 1
        if found[1] is not None and found[1].is_sent:
            found[1].chunk = chunk
    return chunk


def test_a_transfer_is_whole_once_all_its_parts_are_taken() -> None:
    transfers = Transfers()
    begin(transfers, "a")
    assert transfers.whole(99) is None, "nothing of it is sent"
    assert sent(transfers) == 2
    assert transfers.whole(1) is None
    done = transfers.whole(2)
    assert done is not None
    assert (done.number, done.key) == (1, key("a"))
    done.seq = 7
    assert transfers.whole(2) is None, "it is pushed once"
    transfers.settle(6)
    assert len(transfers) == 1
    transfers.settle(7)
    assert len(transfers) == 0


def test_another_begins_when_the_last_is_sent_while_there_is_room_at_the_node() -> None:
    transfers = Transfers()
    begin(transfers, "a")
    assert not transfers.has_room(1)
    sent(transfers)
    for name in "bcd"[: MAX_TRANSFERS - 1]:
        assert transfers.has_room(1)
        begin(transfers, name)
        sent(transfers)
    assert not transfers.has_room(1)
    large = Transfers()
    assert large.has_room(2 * MAX_TRANSFERS_BYTES), "one always may"
    begin(large, "a")
    sent(large)
    assert not large.has_room(MAX_TRANSFERS_BYTES)


def test_one_that_waits_for_its_class_holds_up_neither_another_nor_its_room() -> None:
    transfers = Transfers()
    for name in "ab":
        begin(transfers, name)
        sent(transfers)
    done = transfers.whole(99, lambda each: each == key("b"))
    assert done is not None
    assert done.key == key("b")
    done.seq = 3
    assert transfers.whole(99, lambda each: each == key("b")) is None
    transfers.settle(3)
    assert [transfer.key for transfer in transfers.pending] == [key("a")]
    assert len(transfers) == 1


def test_of_what_is_dropped_the_node_is_told() -> None:
    transfers = Transfers()
    begin(transfers, "a")
    transfers.next()
    [transfer] = transfers.pending
    transfers.drop(transfer)
    assert transfers.next() == (Part(1, 0, b""), None)
    assert not transfers.has_next
    begin(transfers, "b")
    [transfer] = transfers.pending
    assert transfer.number == 2, "a number is used once"
