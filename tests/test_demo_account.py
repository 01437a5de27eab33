"""The hub's account in the demo: what is printed for anybody's hub, and no more."""

import json
from pathlib import Path

import pytest

from apimachinery.errors import Forbidden
from apimachinery.keys import ObjectKey
from apimachinery.resources import NODES, SECRETS
from cloudhub import rbac
from cloudhub.apiclient import ApiClient
from demo import account
from tests.harness.devapi import dev_api


def test_a_kubeconfig_for_another_user_is_of_the_same_cluster() -> None:
    admin = {
        "clusters": [{"name": "c", "cluster": {"server": "https://x"}}],
        "users": [{"name": "admin", "user": {"token": "old"}}],
        "contexts": [{"name": "admin", "context": {"cluster": "c", "user": "admin"}}],
        "current-context": "admin",
    }
    made = account.as_user(admin, "cloudcore", "new")
    assert made["clusters"] == admin["clusters"]
    assert made["users"] == [{"name": "cloudcore", "user": {"token": "new"}}]
    assert made["contexts"] == [{"name": "cloudcore", "context": {"cluster": "c", "user": "cloudcore"}}]
    assert made["current-context"] == "cloudcore"


@pytest.mark.timeout(90)
async def test_the_account_has_its_rights_and_gets_those_back_that_it_lost(tmp_path: Path) -> None:
    admin, target = tmp_path / "api" / "kubeconfig", tmp_path / "cloudcore.kubeconfig"
    async with dev_api(tmp_path / "api") as client:
        await account.make(client, admin, target)
        role = ObjectKey(account.KINDS["ClusterRole"], "", rbac.NAME)
        await client.patch(role, {"rules": []})
        await account.make(client, admin, target)
        assert target.stat().st_mode & 0o777 == 0o600
        assert "admin" not in {each["name"] for each in json.loads(target.read_text())["users"]}
        async with ApiClient.from_kubeconfig(target) as hub:
            await hub.list(NODES)
            with pytest.raises(Forbidden):
                await hub.create(SECRETS, "default", {"metadata": {"name": "a"}})
