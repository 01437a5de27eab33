"""
The numbers that kinds of objects have in the store's tables: what every other row names its kind by.

A row of an object, a report or a local write has a small integer in the place of five texts. The numbers are kept in
memory, as there are a dozen of them and each is asked for all the time.

Invariants
    what is remembered is what the last commit left: a number given in a transaction that failed is given again
    a number of no kind is damage: StoreCorrupt
"""

import contextlib
from collections.abc import Iterator, Mapping

from apimachinery.keys import Resource
from metamanager import statements
from metamanager.connection import Database


class ResourceRows:
    """The table of resources."""

    def __init__(self, database: Database) -> None:
        """Reads all of it; to be called in a transaction."""
        self._database = database
        self._resources: dict[int, Resource] = {}
        for number, *names, namespaced in database.rows(statements.SELECT_RESOURCES):
            group, version, plural, kind = map(str, names)
            self._resources[number] = Resource(group, version, plural, kind, bool(namespaced))
        self._ids = {resource: number for number, resource in self._resources.items()}

    @property
    def by_number(self) -> Mapping[int, Resource]:
        return self._resources

    def known(self) -> list[Resource]:
        """Those that have a number, sorted."""
        return sorted(self._ids)

    def find(self, resource: Resource) -> int | None:
        """The number that a resource has."""
        return self._ids.get(resource)

    def number(self, resource: Resource) -> int:
        """The number that a resource has or is given; to be called in writing()."""
        number = self._ids.get(resource)
        if number is None:
            number = self._database.inserted(statements.INSERT_RESOURCE, tuple(resource))
            self._ids[resource] = number
            self._resources[number] = resource
        return number

    def resource(self, number: int) -> Resource:
        """What has this number. Raises StoreCorrupt."""
        resource = self._resources.get(number)
        self._database.check(resource is not None, "the table of resources")
        assert resource is not None, "checked in the line above"
        return resource

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction after whose failure the numbers of resources are forgotten that it would have given."""
        known = len(self._ids)
        try:
            with self._database.transaction():
                yield
        except BaseException:
            for resource in list(self._ids)[known:]:
                del self._resources[self._ids.pop(resource)]
            raise
