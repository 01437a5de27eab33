"""
Which Devices hang on which node and which model, so that a change of either finds the Devices it concerns.

Invariants
    what of_node() and of_model() give is exactly what attach() was told of last, less what was detached
    a Device that is attached again is first let go of

Pure state: no clock, no I/O.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import JSON
from apimachinery.resources import DEVICE_MODELS
from cloudhub.devices import model_of, node_of, property_names


class Attachment(NamedTuple):
    """What a Device refers to, read once per version."""

    node: Node
    model: ObjectKey
    properties: tuple[str, ...]


class Attachments:
    """The index."""

    def __init__(self) -> None:
        self._attached: dict[ObjectKey, Attachment] = {}
        self._by_node: dict[Node, set[ObjectKey]] = {}
        self._by_model: dict[ObjectKey, set[ObjectKey]] = {}

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._attached

    def get(self, key: ObjectKey) -> Attachment | None:
        return self._attached.get(key)

    def of_node(self, node: Node) -> Iterable[ObjectKey]:
        return self._by_node.get(node, ())

    def of_model(self, model: ObjectKey) -> Iterable[ObjectKey]:
        return self._by_model.get(model, ())

    def attach(self, key: ObjectKey, device: Mapping[str, JSON]) -> None:
        """This Device is so now."""
        self.detach(key)
        attachment = self._attached[key] = Attachment(
            Node(node_of(device)),
            ObjectKey(DEVICE_MODELS, key.namespace, model_of(device)),
            # A thousand devices of one model have the same few names.
            tuple(map(sys.intern, property_names(device))),
        )
        self._by_node.setdefault(attachment.node, set()).add(key)
        self._by_model.setdefault(attachment.model, set()).add(key)

    def detach(self, key: ObjectKey) -> None:
        """There is no such Device any more; harmless when there was none."""
        attachment = self._attached.pop(key, None)
        if attachment is None:
            return
        self._by_node[attachment.node].discard(key)
        if not self._by_node[attachment.node]:
            del self._by_node[attachment.node]
        self._by_model[attachment.model].discard(key)
        if not self._by_model[attachment.model]:
            del self._by_model[attachment.model]
