"""
Which kinds the node's local API serves: those that it may ask the cluster for, or else those that it holds.

Where the cloud can be asked, any kind is served that the cluster has (metamanager.clusterkinds), and what is not held
is fetched. Where it cannot, an empty list says "there are none for this node". So a kind is served then only where the
hub sends it to this node: the ones that every node gets, the custom ones whose definition the hub sent, and any that
the node holds or once held. Any other is "not found", which is not the same as "none".

Pure: no I/O.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from apimachinery.keys import Resource
from apimachinery.objects import Object
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICES,
    LEASES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.definitions import READ_VERBS, Catalogue, Definition, from_crd

EVERY_NODE_HOLDS = (NODES, LEASES, PODS, CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, CUSTOM_RESOURCE_DEFINITIONS)
"""The built-in kinds that a hub sends to every node (cloudhub's standard placement)."""

_BUILT_IN = {definition.resource: definition for definition in BUILT_IN}


def catalogue_of(
    definitions: Iterable[Object],
    held: Iterable[Resource],
    once_held: Iterable[Resource],
    withheld: frozenset[Resource] = frozenset(),
    cluster: Iterable[Definition] | None = None,
) -> Catalogue:
    """
    What is served.

    definitions: CustomResourceDefinitions. held: resources that have objects. once_held: resources that
    ever had any; of these, custom ones count only while they are defined. withheld: never served. cluster: what the
    cluster said that it has, if it ever said; verbs and subresources are taken from there. None where it cannot be
    asked: then what is held is to be read only, and nothing else is served.
    """
    found = _definitions(definitions, held, once_held)
    if cluster is None:
        entries = [replace(entry, verbs=_verbs(entry.resource)) for entry in found]
    else:
        known = Catalogue((*BUILT_IN, *REVIEWS, *found))
        entries = [*known, *(_known_better(entry, known) for entry in cluster)]
    return Catalogue(entry for entry in entries if entry.resource not in withheld)


def _known_better(entry: Definition, known: Catalogue) -> Definition:
    """What the cluster says of a kind, with what only its definition tells: columns, and fields to select by."""
    better = known.of(entry.resource)
    if better is None:
        return entry
    return replace(
        entry, columns=better.columns, selectable=better.selectable, schema=better.schema, is_custom=better.is_custom
    )


def _verbs(resource: Resource) -> tuple[str, ...]:
    """The desired values of Devices can be patched (metamanager.devices), nothing else can be changed."""
    return (*READ_VERBS, "patch") if resource == DEVICES else READ_VERBS


def _definitions(
    definitions: Iterable[Object], held: Iterable[Resource], once_held: Iterable[Resource]
) -> Iterator[Definition]:
    built_in = {resource for resource in (*EVERY_NODE_HOLDS, *once_held) if resource in _BUILT_IN}
    yield from (entry for resource, entry in _BUILT_IN.items() if resource in built_in)
    yield from (Definition(resource, is_custom=True) for resource in held if resource not in _BUILT_IN)
    # Last, so that a definition takes the place of the bare fact that there are objects.
    for item in definitions:
        yield from from_crd(item.parse())
