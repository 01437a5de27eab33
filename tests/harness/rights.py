"""The account of the hub and its rights, as an admin would apply what `cloudcore rbac` prints."""

import base64
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from apimachinery.resources import SERVICE_ACCOUNTS
from cloudhub import rbac
from cloudhub.vault import NAMESPACE
from demo.account import KINDS, TOKEN_REQUEST, as_user


def hub_kubeconfig(admin: Path, wanted: rbac.Wanted = rbac.Wanted()) -> Path:  # noqa: B008 - it is immutable
    """Makes the account with the admin's kubeconfig; returns one with a token of it, beside that."""
    config: dict[str, Any] = yaml.safe_load(admin.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    server = urllib.parse.urlsplit(cluster["server"])
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    assert server.hostname is not None
    connection = http.client.HTTPSConnection(server.hostname, server.port, context=trust, timeout=10)

    def post(path: str, value: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {user['token']}"}
        connection.request("POST", path, json.dumps(value), headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status in (201, 409), body.decode()  # 409: another test of this cluster has made it
        answer: dict[str, Any] = json.loads(body)
        return answer

    for each in yaml.safe_load_all(rbac.text(wanted)):
        post(KINDS[each["kind"]].path(each["metadata"].get("namespace", "")), each)
    path = SERVICE_ACCOUNTS.path(NAMESPACE, rbac.ACCOUNT, "token")
    token = post(path, TOKEN_REQUEST)["status"]["token"]
    connection.close()
    made = admin.with_name("kubeconfig-cloudcore")
    made.write_text(json.dumps(as_user(config, rbac.ACCOUNT, token)))
    return made
