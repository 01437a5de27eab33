"""
What devicetwin keeps in the edge's store, and how it is written there.

"twin/<namespace>/<name>" is a twin; "mapper/<name>" the devices that a living mapper said it serves. A
document that cannot be read was written by somebody else or by a newer program: it is told of and left out,
so that one bad line does not keep all devices from starting.

Pure.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from apimachinery.objects import canonical
from devicetwin.messages import DeviceId
from devicetwin.twin import Twin
from devicetwin.wire import key_of

logger = logging.getLogger(__name__)

TWIN_PREFIX = "twin/"
MAPPER_PREFIX = "mapper/"


class Kept(NamedTuple):
    """All that was durable when edgecore started."""

    twins: dict[DeviceId, Twin]
    mappers: dict[str, tuple[DeviceId, ...]]


def twin_name(device: DeviceId) -> str:
    return f"{TWIN_PREFIX}{device}"


def mapper_name(mapper: str) -> str:
    return f"{MAPPER_PREFIX}{mapper}"


def twin_document(twin: Twin) -> bytes:
    return canonical(twin.to_json())


def mapper_document(devices: Iterable[DeviceId]) -> bytes:
    return canonical({"devices": [str(device) for device in devices]})


def read_documents(documents: Mapping[str, bytes]) -> Kept:
    """Everything under the two prefixes; names of other kinds are skipped."""
    kept = Kept({}, {})
    for name, document in documents.items():
        try:
            if name.startswith(TWIN_PREFIX):
                device = DeviceId.parse(name.removeprefix(TWIN_PREFIX))
                kept.twins[device] = Twin.from_json(key_of(device), json.loads(document))
            elif name.startswith(MAPPER_PREFIX):
                ids = json.loads(document)["devices"]
                kept.mappers[name.removeprefix(MAPPER_PREFIX)] = tuple(DeviceId.parse(each) for each in ids)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.error(
                "a stored document is not readable and starts empty", extra={"document": name, "why": str(error)}
            )
    return kept
