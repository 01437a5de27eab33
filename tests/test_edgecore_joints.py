"""Where siblings meet: what the twins save is told to the link if it has to go up."""

from pathlib import Path

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.resources import DEVICE_MODELS, DEVICE_STATUSES, DEVICES, PODS
from componentbase.lately import LATELY_S
from edgecore.joints import CloudLink, CloudNews, Outbox
from edgehub.connector import LinkStatus
from link.frames import Batch, Cursor, Delta, ReportEntry
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


def test_the_clusters_changes_are_news_for_a_while_and_those_of_devices_are_none() -> None:
    now_s = 5.0
    news = CloudNews(lambda: now_s)

    def batch(*resources: Resource) -> Batch:
        keys = [ObjectKey(resource, "default", "a") for resource in resources]
        return Batch(Cursor("e", 1), tuple(Delta(key, ObjectVersion("u", "1"), b"{}") for key in keys), synced=True)

    news.came([batch(DEVICES, DEVICE_MODELS, DEVICE_STATUSES), batch()])
    assert not news.is_coming()
    news.came([batch(DEVICES), batch(DEVICES, PODS)])
    assert news.is_coming()
    now_s += LATELY_S
    assert not news.is_coming()
