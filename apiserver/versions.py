"""
One object in another version of its kind: the same fields under another apiVersion, cut and filled to that schema.

That is all that conversion by strategy None is. Objects are kept in one version, and every other that is served is
such a view, made when it is read.

Pure.
"""

import json

from apiserver import pruning
from apiserver.definitions import Definition


def presented(body: bytes, definition: Definition) -> bytes:
    """An object's JSON as the definition's version has it; as it is where it is kept in that version."""
    if not definition.is_view:
        return body
    value = json.loads(body)
    if value.get("kind") != definition.resource.kind:
        return body  # a Status
    value["apiVersion"] = definition.resource.api_version
    if definition.schema is not None:
        pruning.prune(value, definition.schema)
        pruning.default(value, definition.schema)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
