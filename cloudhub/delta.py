"""
What a node lacks: the one subtraction everything else is made of.

First connect, live update, lost ack, reconnect and hub restart differ only in what is known; see
docs/why/subtraction.md.
"""

from collections.abc import Iterator, Mapping

from apimachinery.keys import ObjectKey, ObjectVersion


def diff(
    desired: Mapping[ObjectKey, ObjectVersion], known: Mapping[ObjectKey, ObjectVersion]
) -> Iterator[tuple[ObjectKey, ObjectVersion | None]]:
    """
    Keys whose version differs, with the desired one; None for what the node should not have.

    Versions are compared for equality only; order is the stream's business. O(len(desired) + len(known)).

    After the incremental xDS protocol (envoyproxy.io, "xDS REST and gRPC protocol").
    """
    for key, version in desired.items():
        if known.get(key) != version:
            yield key, version
    for key in known:
        if key not in desired:
            yield key, None
