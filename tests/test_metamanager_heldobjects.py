"""Objects as clients get them: with the local revision where they look for it."""

import json

import pytest

from apimachinery.objects import JSON, from_json
from apimachinery.resources import CONFIG_MAPS
from metamanager.heldobjects import with_revision


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": '"metadata":{'}},
        {"apiVersion": "v1", "data": {"metadata": {"name": "b"}}, "kind": "ConfigMap", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"resourceVersion": "7"}},
    ],
)
def test_the_revision_is_put_where_clients_look(body: dict[str, JSON]) -> None:
    item = from_json(CONFIG_MAPS, body, revision="")
    value = json.loads(with_revision(item, 42))
    assert value["metadata"].pop("resourceVersion") == "42"
    assert value == {"apiVersion": "v1", "kind": "ConfigMap"} | body
