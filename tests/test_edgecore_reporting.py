"""What edgecore reports of itself."""

from pathlib import Path

from apimachinery.keys import Node
from componentbase.endpoints import Endpoint
from edgecore.joints import Outbox
from edgecore.reporting import report_node_info, report_rebuild
from metamanager.store import Store


async def test_what_machine_it_is_is_told_once(tmp_path: Path) -> None:
    store, told = await Store.open(tmp_path / "edge.db"), []
    outbox = Outbox(store, lambda: told.append(1))
    for _ in range(2):
        await report_node_info(store, outbox, Node("edge-1"), Endpoint("127.0.0.1", 1))
        assert (len(told), await store.report_count()) == (1, 1)
    await store.close()


async def test_a_store_that_was_not_begun_anew_tells_nothing(tmp_path: Path) -> None:
    store, told = await Store.open(tmp_path / "edge.db"), []
    await report_rebuild(store, Node("edge-1"), lambda: told.append(1))
    assert (told, await store.event_count()) == ([], 0)
    await store.close()
