"""The authorizer over a real storage: it knows what was answered, however long it was not asked."""

from pathlib import Path

import pytest

from apimachinery.errors import Forbidden
from apiserver.attributes import Attributes
from apiserver.authorizer import Authorizer
from apiserver.users import ADMIN, authenticated
from tests.harness.cluster import RBAC, cluster

LIST = Attributes(verb="list", resource="pods", namespace="d")
JANE = authenticated("jane")


async def test_a_binding_counts_from_the_moment_it_was_answered(tmp_path: Path) -> None:
    async with cluster(tmp_path) as api:
        with pytest.raises(Forbidden):
            api.authorizer.check(JANE, LIST)
        await api.bind("view", "User", "jane", "d")
        api.authorizer.check(JANE, LIST)
        await api("DELETE", f"{RBAC}/namespaces/d/rolebindings")
        assert not api.authorizer.allows(JANE, LIST)[0]


async def test_who_starts_late_or_was_not_asked_for_long_knows_the_same(tmp_path: Path) -> None:
    async with cluster(tmp_path) as api:
        asleep = Authorizer(api.storage)
        assert not asleep.allows(JANE, LIST)[0]
        await api.bind("view", "User", "jane", "d")
        assert Authorizer(api.storage).allows(JANE, LIST)[0]
        api.storage._floor = api.storage.revision  # as after more changes than the window holds
        assert asleep.allows(JANE, LIST)[0]


async def test_a_master_is_not_looked_up(tmp_path: Path) -> None:
    async with cluster(tmp_path) as api:
        await api("DELETE", f"{RBAC}/clusterrolebindings")
        api.authorizer.check(ADMIN, LIST)
