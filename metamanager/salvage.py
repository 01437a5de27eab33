"""
What can be carried out of a damaged database: the reports, Events and local writes that nobody else has, the documents,
and what the local API was asked for.

Documents say what was queued as a report, so that nothing is told twice. One whose report was lost would keep quiet
about it for ever; so documents come along only where every report does. Without them a node's twins begin anew, and
whatever is reported next is news.

Reading goes on where it can: a table is read from its first row until one cannot be, and then from its last.
"""

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from apimachinery.keys import ObjectKey, Resource
from apimachinery.kubeevents import KubeEvent
from link.frames import ReportEntry
from metamanager import statements
from metamanager.connection import Database
from metamanager.errors import StoreError
from metamanager.interestrows import RememberedInterest
from metamanager.overlay import LocalWrite


class Salvaged(NamedTuple):
    """What could be read, in its order."""

    documents: dict[str, bytes]
    reports: list[ReportEntry]
    events: list[KubeEvent]
    writes: list[LocalWrite]
    interests: list[RememberedInterest]
    whole: bool
    """Whether every report could be read. (A lost Event changes nothing.)"""


def salvage(path: Path) -> Salvaged:
    """Everything that can be read of a database that is not to be used again. Raises nothing that damage may cause."""
    nothing = Salvaged({}, [], [], [], [], False)
    try:
        database = Database(path)
    except StoreError:
        return nothing
    try:
        resources = _resources(database)
        reports, whole = _reports(database, resources)
        documents = _documents(database) if whole else {}
        writes, interests = _writes(database, resources), _interests(database, resources)
        return Salvaged(documents, reports, _events(database), writes, interests, whole)
    finally:
        database.close()


@contextlib.contextmanager
def _until_damage() -> Iterator[None]:
    """Damage shows as SQLite's own errors, or as values that are not what they were."""
    with contextlib.suppress(StoreError, ValueError, TypeError):
        yield


def _resources(database: Database) -> dict[int, Resource]:
    resources: dict[int, Resource] = {}
    with _until_damage(), database.transaction():
        for number, group, version, plural, kind, namespaced in database.rows(statements.SELECT_RESOURCES):
            resources[number] = Resource(group, version, plural, kind, bool(namespaced))
    return resources


def _reports(database: Database, resources: dict[int, Resource]) -> tuple[list[ReportEntry], bool]:
    """Readable reports by their numbers, and whether that is all of them."""
    found: dict[int, ReportEntry] = {}
    whole = True
    for statement, parameters in ((statements.SELECT_REPORTS, (0,)), (statements.SELECT_REPORTS_BACKWARDS, ())):
        reached_end = False
        with _until_damage(), database.transaction():
            for seq, resource, namespace, name, field, checksum, value in database.rows(statement, parameters):
                if resource in resources and zlib.crc32(value) == checksum:
                    found[seq] = ReportEntry(ObjectKey(resources[resource], namespace, name), field, value)
                else:
                    whole = False
            reached_end = True
        if reached_end:
            break
        whole = False
    return [entry for _, entry in sorted(found.items())], whole


def _documents(database: Database) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with _until_damage(), database.transaction():
        for name, checksum, value in database.rows(statements.SELECT_DOCUMENTS, ("", "")):
            if zlib.crc32(value) == checksum:
                found[str(name)] = value
    return found


def _events(database: Database) -> list[KubeEvent]:
    found: list[KubeEvent] = []
    with _until_damage(), database.transaction():
        for *_, checksum, value in database.rows(statements.SELECT_EVENTS, (0,)):
            if zlib.crc32(value) == checksum:
                found.append(KubeEvent.from_json(json.loads(value)))
    return found


def _writes(database: Database, resources: dict[int, Resource]) -> list[LocalWrite]:
    found: list[LocalWrite] = []
    with _until_damage(), database.transaction():
        for row in database.rows(statements.SELECT_LOCAL):
            seq, resource, namespace, name, subresource, uid, creates, user, revision, at_ms, checksum, value = row
            if resource in resources and zlib.crc32(value) == checksum:
                key = ObjectKey(resources[resource], namespace, name)
                found.append(LocalWrite(seq, key, subresource, uid, bool(creates), user, revision, at_ms, value))
    return found


def _interests(database: Database, resources: dict[int, Resource]) -> list[RememberedInterest]:
    """Not as complete: what they select went with the database."""
    found: list[RememberedInterest] = []
    with _until_damage(), database.transaction():
        for resource, namespace, name, user, used_at_ms, _ in database.rows(statements.SELECT_INTERESTS):
            if resource in resources:
                found.append(RememberedInterest(resources[resource], namespace, name, user, used_at_ms, False))
    return found
