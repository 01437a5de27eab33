"""
What devicetwin keeps in the edge's store, and how it is written there.

"twin/<namespace>/<name>" is a twin, "twin/<namespace>/<name>/<property>" one of its properties, so that a report writes
what it changed and not all that the device has; "mapper/<name>" the devices that a living mapper said it serves. A
document that cannot be read was written by somebody else or by a newer program: it is told of and left out,
so that one bad line does not keep all devices from starting.

Earlier builds wrote a twin in one document. Such a one is read, and split when the twin changes next.

Pure.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from componentbase.jsonbytes import compact
from devicetwin.messages import DeviceId
from devicetwin.twin import Property, Twin, property_from, property_json
from devicetwin.wire import id_of, key_of

logger = logging.getLogger(__name__)

TWIN_PREFIX = "twin/"
MAPPER_PREFIX = "mapper/"


class Kept(NamedTuple):
    """All that was durable when edgecore started."""

    twins: dict[DeviceId, Twin]
    mappers: dict[str, tuple[DeviceId, ...]]
    split: Mapping[DeviceId, Twin] = MappingProxyType({})
    """What is kept property by property; see twin_documents."""


def twin_name(device: DeviceId) -> str:
    """The twin's document, and the beginning of the names of its properties'."""
    return f"{TWIN_PREFIX}{device}"


def mapper_name(mapper: str) -> str:
    return f"{MAPPER_PREFIX}{mapper}"


def twin_documents(twin: Twin, before: Twin | None) -> Iterator[tuple[str, bytes | None]]:
    """What to write and to delete (None) where `before` is what is kept; None where nothing is, or not split."""
    head = twin_name(id_of(twin.device))
    if before is None or twin.head_json() != before.head_json():
        yield head, compact(twin.head_json())
    kept = {} if before is None else before.properties
    for name, each in twin.properties.items():
        old = kept.get(name)
        # A property that did not change mostly is the same object, and one that did has another reading.
        if old is each or (old and old.reported == each.reported and property_json(old) == property_json(each)):
            continue
        yield f"{head}/{name}", compact(property_json(each))
    if not kept.keys() <= twin.properties.keys():
        yield from ((f"{head}/{name}", None) for name in kept if name not in twin.properties)


def mapper_document(devices: Iterable[DeviceId]) -> bytes:
    return compact({"devices": [str(device) for device in devices]})


def read_documents(documents: Mapping[str, bytes]) -> Kept:
    """Everything under the two prefixes; names of other kinds are skipped."""
    heads, mappers = dict[DeviceId, Twin](), dict[str, tuple[DeviceId, ...]]()
    properties: dict[DeviceId, dict[str, Property]] = {}
    for name, document in documents.items():
        try:
            if name.startswith(TWIN_PREFIX):
                *device_id, rest = name.removeprefix(TWIN_PREFIX).split("/", 2)
                if len(device_id) == 2:
                    found = properties.setdefault(DeviceId.parse("/".join(device_id)), {})
                    found[rest] = property_from(json.loads(document))
                else:
                    device = DeviceId.parse("/".join((*device_id, rest)))
                    heads[device] = Twin.from_json(key_of(device), json.loads(document))
            elif name.startswith(MAPPER_PREFIX):
                ids = json.loads(document)["devices"]
                mappers[name.removeprefix(MAPPER_PREFIX)] = tuple(DeviceId.parse(each) for each in ids)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.error(
                "a stored document is not readable and starts empty", extra={"document": name, "why": str(error)}
            )
    # Where a twin stands in one document, or is gone, what is kept of its properties counts for nothing but being kept.
    split = {
        device: heads[device]._replace(properties=found)
        if device in heads and not heads[device].properties
        else Twin(key_of(device), "", found)
        for device, found in {**{each: {} for each, twin in heads.items() if not twin.properties}, **properties}.items()
    }
    twins = {device: split[device] if not twin.properties else twin for device, twin in heads.items()}
    return Kept(twins, mappers, split)
