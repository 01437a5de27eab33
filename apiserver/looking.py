"""
What a plan looked at, so that it can be told later whether it would still come out the same.

A plan that is made before its turn is carried out at its turn as it is, where nothing that it looked at has changed
meanwhile; otherwise it is made anew.

Pure state: no clock, no I/O.
"""

from collections.abc import Iterable, Sequence

from apimachinery.events import Change
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object
from apiserver.definitions import Catalogue
from apiserver.plans import View


class Looking:
    """Is an apiserver.plans.View, over another one."""

    def __init__(self, view: View, revision: int) -> None:
        """revision: of the last change that the view shows."""
        self._view = view
        self.revision = revision
        self.catalogue = view.catalogue
        self._keys: set[ObjectKey] = set()
        self._resources: set[Resource] = set()
        self._is_about_all = False

    def get(self, key: ObjectKey) -> Object | None:
        self._keys.add(key)
        return self._view.get(key)

    def all_of(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        self._resources.add(resource)
        return self._view.all_of(resource, namespace)

    def dependents(self, uid: str) -> Sequence[ObjectKey]:
        self._is_about_all = True
        return self._view.dependents(uid)

    def lives(self, uid: str) -> bool:
        self._is_about_all = True
        return self._view.lives(uid)

    def is_so(self, catalogue: Catalogue, changes: Iterable[Change]) -> bool:
        """Whether all that was seen is so still. changes: all those after `revision`."""
        return catalogue is self.catalogue and not any(map(self._concerns, changes))

    def _concerns(self, change: Change) -> bool:
        key = change.object.key
        return self._is_about_all or key in self._keys or key.resource in self._resources
