"""Tests for cloudhub.execplugin, with real child processes."""

import asyncio
import datetime
import sys
from pathlib import Path

import pytest

from cloudhub.execplugin import API_VERSIONS, CredentialsUnavailable, ExecPlugin

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def plugin(folder: Path, body: str, *, api_version: str = API_VERSIONS[0]) -> ExecPlugin:
    """A plugin that counts its runs in `runs` and then does what `body` says in Python."""
    script = folder / "plugin.py"
    script.write_text(
        "import json, os, sys\n"
        f"runs = {str(folder / 'runs')!r}\n"
        "count = (len(open(runs).read()) if os.path.exists(runs) else 0) + 1\n"
        "open(runs, 'a').write('x')\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "def give(**status):\n"
        "    print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': status}))\n" + body
    )
    return ExecPlugin(
        [sys.executable, str(script)],
        api_version=api_version,
        env={"GREETING": "hello"},
        cluster={"server": "https://there"},
        now=lambda: NOW,
    )


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text())


@pytest.mark.parametrize("api_version", API_VERSIONS)
async def test_gives_the_token_it_prints(tmp_path: Path, api_version: str) -> None:
    body = "give(token=os.environ['GREETING'] + ' ' + info['apiVersion'] + ' ' + info['spec']['cluster']['server'])"
    token = await plugin(tmp_path, body, api_version=api_version).token()
    assert token == f"hello {api_version} https://there"


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(CredentialsUnavailable, match="v7"):
        ExecPlugin(["x"], api_version="client.authentication.k8s.io/v7", env={}, cluster={})


async def test_one_run_serves_all_who_wait(tmp_path: Path) -> None:
    source = plugin(tmp_path, "give(token=f'token-{count}')")
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(source.token()) for _ in range(10)]
    assert {task.result() for task in waiting} == {"token-1"}
    assert runs(tmp_path) == 1


async def test_a_refused_token_is_asked_for_again_once(tmp_path: Path) -> None:
    source = plugin(tmp_path, "give(token=f'token-{count}')")
    first = await source.token()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(source.token(refused=first)) for _ in range(5)]
    assert {task.result() for task in waiting} == {"token-2"}
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(("expires", "kept"), [("2030-01-01T00:00:05Z", False), ("2030-01-01T01:00:00Z", True)])
async def test_a_token_is_kept_until_shortly_before_it_expires(tmp_path: Path, expires: str, kept: bool) -> None:
    source = plugin(tmp_path, f"give(token=f'token-{{count}}', expirationTimestamp={expires!r})")
    await source.token()
    assert await source.token() == ("token-1" if kept else "token-2")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit('you must log in first')", "exit code 1: you must log in first"),
        ("print('hello')", "did not print an ExecCredential"),
        ("print(json.dumps({'status': []}))", "did not print an ExecCredential"),
        ("give(token='t', expirationTimestamp='soon')", "did not print an ExecCredential"),
        ("give(clientCertificateData='c', clientKeyData='secret')", "gave no token"),
    ],
)
async def test_what_goes_wrong_is_told_without_secrets(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(CredentialsUnavailable, match=told) as caught:
        await plugin(tmp_path, body).token()
    assert "secret" not in str(caught.value)


async def test_a_missing_plugin_is_told() -> None:
    missing = ExecPlugin(["/no/such/plugin"], api_version=API_VERSIONS[0], env={}, cluster={})
    with pytest.raises(CredentialsUnavailable, match="/no/such/plugin cannot be started: No such file"):
        await missing.token()


async def test_a_plugin_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudhub.execplugin.RUN_S", 0.2)
    body = "import time\ntime.sleep(60)"
    with pytest.raises(CredentialsUnavailable, match="no answer within"):
        await plugin(tmp_path, body).token()
