"""What a node says of itself: how old what it holds is."""

import time
from pathlib import Path
from typing import cast

import pytest

from devicetwin.service import TwinService
from edgecore.settings import EdgeConfig
from edgecore.statuspage import NodeStatus
from edgehub.connector import LinkStatus
from metamanager.store import Store


async def test_what_is_in_sync_counts_from_when_the_hub_was_heard_last(tmp_path: Path) -> None:
    store, link = await Store.open(tmp_path / "edge.db"), LinkStatus()
    status = NodeStatus(EdgeConfig(), store, link, cast(TwinService, None), lambda: False)
    silent = 1.0
    link.silent_s = lambda: silent

    def stale_s() -> float | None:
        state = status.link_state()
        assert state.left_sync_at_ms is None or not state.in_sync
        return None if state.left_sync_at_ms is None else time.time() - state.left_sync_at_ms / 1000

    link.synced = True
    await status._look()
    assert stale_s() is None
    silent = 40.0
    assert stale_s() == pytest.approx(40, abs=1), "it hangs, and its link is not given up yet"
    link.synced = False
    assert stale_s() == pytest.approx(40, abs=1), "nobody has looked since the link was lost"
    await status._look()
    assert stale_s() == pytest.approx(40, abs=1)
    synced_at_ms = await store.last_synced_at_ms()
    assert synced_at_ms is None, "there never was a complete sync, so there is nothing to note"
    await store.close()
