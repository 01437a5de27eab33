"""Where siblings meet: what the twins save is told to the link if it has to go up."""

from pathlib import Path

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from edgecore.joints import CloudLink, Outbox
from edgehub.connector import LinkStatus
from link.frames import ReportEntry
from metamanager.store import Store


async def test_the_link_is_told_of_what_has_to_go_up_and_of_nothing_else(tmp_path: Path) -> None:
    store, told = await Store.open(tmp_path / "edge.db"), []
    outbox = Outbox(store, lambda: told.append(1))
    await outbox.save({"twin/a": b"1"}, [])
    assert not told
    await outbox.save({}, [ReportEntry(ObjectKey(DEVICES, "default", "a"), "state", b"1")])
    assert len(told) == 1
    assert await outbox.documents("twin/") == {"twin/a": b"1"}
    assert await store.report_count() == 1
    await store.close()


def test_the_link_is_there_while_it_is_connected() -> None:
    status = LinkStatus()
    link = CloudLink(status)
    assert not link.is_connected()
    status.connected = True
    assert link.is_connected()
