"""
What edgecore itself reports to the cloud: what machine this is, and that its store was begun anew.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from apimachinery.devices import NODE_INFO_FIELD
from apimachinery.keys import Node, ObjectKey
from apimachinery.resources import NODES
from componentbase.endpoints import Endpoint
from componentbase.release import VERSION
from edgecore.joints import Outbox
from link.frames import ReportEntry

if TYPE_CHECKING:
    from metamanager.store import Store

logger = logging.getLogger(__name__)


async def report_node_info(store: "Store", outbox: Outbox, node: Node, link: Endpoint) -> None:
    """Tell the cloud what machine this is, once and whenever that has changed."""
    from componentbase.aside import aside
    from edgehub.nodeinfo import node_info, outgoing_address
    from metamanager.errors import StoreError

    address = await aside(lambda: outgoing_address(link.host, link.port), "node-info")
    told = node_info(f"fairlead-{VERSION}", address)
    document = "edgecore/nodeInfo"
    try:
        if (await store.documents(document)).get(document) != told:
            await outbox.save({document: told}, [ReportEntry(ObjectKey(NODES, "", node), NODE_INFO_FIELD, told)])
    except StoreError as exc:
        logger.warning("node info not reported", extra={"reason": str(exc)})


async def report_rebuild(store: "Store", node: Node, saved: Callable[[], None]) -> None:
    """Tell the cloud, once, that the store was damaged and begun anew."""
    from metamanager.errors import StoreError
    from metamanager.rebuilt import tell_rebuilt

    try:
        if await tell_rebuilt(store, node):
            saved()
    except StoreError as exc:
        logger.warning("the rebuild of the store is not reported yet", extra={"reason": str(exc)})
