"""Joining as real processes: what is checked changes nothing, one machine per single use, names, crashes, guesses."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from componentbase import pki
from componentbase.endpoints import Endpoint
from edgehub.joinhub import Busy, Hub, Refused, pin_of
from tests.conftest import need_tool
from tests.harness.mosquitto import free_port
from tests.harness.proxy import Proxy
from tests.harness.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("join")) as site:
        site.start_cloud()
        yield site


def command(site: Site, node: str, token: str, *flags: str, port: int = 0, home: Path | None = None) -> list[str]:
    return [
        *("edgecore", "join", "--cloud", f"127.0.0.1:{port or site.ports['join']}", "--token", token),
        *("--node", node, "--data-dir", str(home or site.directory / node), *flags),
    ]


def join(site: Site, node: str, token: str, *flags: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    return site.run(*command(site, node, token, *flags, home=home), check=False)


def tokens(site: Site) -> str:
    return site.run("cloudcore", "token", "list", "--kubeconfig", str(site.kubeconfig)).stdout


def uses(site: Site, token: str) -> str:
    [line] = [line for line in tokens(site).splitlines() if line.startswith(token.split(".")[1])]
    [found] = re.findall(r"\d+ of 1", line)
    return str(found)


def test_a_check_says_that_everything_would_work_and_uses_nothing_up(site: Site) -> None:
    token = site.token("--single-use", "--nodes", "checked-*")
    checked = join(site, "checked-1", token, "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    lines = checked.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 11
    assert f"127.0.0.1:{site.ports['link']} is there, with a certificate of this CA" in checked.stdout
    assert not (site.directory / "checked-1").exists()
    assert uses(site, token) == "0 of 1"
    assert join(site, "checked-1", token).returncode == 0
    listed = tokens(site)
    assert re.search(rf"(?m)^{token.split('.')[1]}   \S+Z   checked-\*  +1 of 1  +\S+Z by checked-1$", listed), listed
    assert token.split(".")[2] not in listed

    again = join(site, "checked-2", token, "--check")
    assert again.returncode == 1
    assert re.search(r"(?m)^FAIL  token  .*single use and has been used at", again.stdout), again.stdout
    assert "edgecore: error: checked-2 cannot join yet: 1 of these failed" in again.stderr
    assert not (site.directory / "checked-2").exists()


def test_of_machines_that_use_a_token_for_one_at_once_one_joins_whichever_replicas_they_ask(site: Site) -> None:
    token, port = site.token("--single-use"), free_port()
    replica = site.start_cloud("cloud-2", link=free_port(), join=port)
    asked = [("once-1", 0), ("once-2", port), ("once-3", 0), ("once-4", port)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda each: site.run(*command(site, each[0], token, port=each[1]), check=False), asked))
    assert replica.stop() == 0
    assert sorted(each.returncode for each in done) == [0, 1, 1, 1]
    refused = [each.stderr for each in done if each.returncode]
    assert all("single use and has been used" in text for text in refused), refused
    assert uses(site, token) == "1 of 1"


def test_an_answer_that_was_lost_is_given_again_to_the_machine_that_asked(site: Site) -> None:
    token, home, log = site.token("--single-use"), site.directory / "lost", site.processes["cloud"].log
    with Proxy(site.ports["join"], rate=4000) as proxy:
        asking = site.start("asking", *command(site, "lost", token, port=proxy.port))
        site.until(lambda: re.search(r"node joined.*\blost\b", log.read_text()), "the hub has signed", asking)
        asking.kill()
    assert not (home / "pki").exists()
    assert not (home / "edgecore.yaml").exists()
    [key] = home.glob(".joining/pki/edge.key")
    assert key.stat().st_mode & 0o777 == 0o600
    secret, kept = token.split(".")[2], [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret in path.read_text()]

    asked = key.read_bytes()
    assert join(site, "lost", token, home=site.directory / "stranger").returncode == 1
    checked = join(site, "lost", token, "--check")
    assert checked.returncode == 0, checked.stdout
    again = join(site, "lost", token)
    assert again.returncode == 0, again.stderr
    assert (home / "pki" / "edge.key").read_bytes() == asked
    assert pki.common_name((home / "pki" / "edge.crt").read_bytes()) == "system:node:lost"
    assert not (home / ".joining").exists()


def test_a_node_is_replaced_with_a_token_for_it_only_and_has_its_labels(site: Site) -> None:
    kubectl = need_tool("kubectl-current")
    labels = site.token("--labels", "site=berlin,example.com/rack=7")
    assert join(site, "named", labels).returncode == 0
    site.start_edge("named")
    node = json.loads(site.kubectl(kubectl, "get", "node", "named", "-o", "json").stdout)
    assert node["metadata"]["labels"].items() >= {"site": "berlin", "example.com/rack": "7"}.items()
    site.processes["named"].stop()

    other = site.directory / "named-2"
    for flags in ([], ["--check"]):
        refused = join(site, "named", labels, *flags, home=other)
        assert refused.returncode == 1
        assert "a node named exists" in refused.stdout + refused.stderr
        assert not other.exists()
    token = site.token("--replace", "--nodes", "named", "--single-use")
    replaced = join(site, "named", token, home=other)
    assert replaced.returncode == 0, replaced.stderr
    assert "node replaced" in site.processes["cloud"].log.read_text()


def test_a_ban_ends_the_session_at_the_other_replica_and_an_old_key_counts_no_more(site: Site) -> None:
    kubectl, port = need_tool("kubectl-current"), free_port()
    replica = site.start_cloud("cloud-3", link=free_port(), join=port)
    admin = ("--kubeconfig", str(site.kubeconfig))
    token = site.token("--replace", "--nodes", "barred")
    assert site.run(*command(site, "barred", token, port=port)).returncode == 0
    site.start_edge("barred")

    began = time.monotonic()
    banned = site.run("cloudcore", "node", "ban", "barred", "--reason", "stolen", *admin)
    written = time.monotonic()
    site.until(lambda: "is banned since" in str(site.ask("edgecore", "barred").get("problem")), "the edge knows")
    figure = f"{time.monotonic() - written:.2f} s after the command, which took {written - began:.2f} s"
    assert time.monotonic() - written < 1.0, figure
    assert "it is disconnected now" in banned.stdout
    for name in ("cloud", "cloud-3"):
        site.until(lambda name=name: site.ask("cloudcore", name)["banned"], "every replica knows")  # type: ignore[misc]
    assert re.search(
        r"(?m)^banned     barred since \S+: stolen$",
        site.run("cloudcore", "status", "--data-dir", str(site.directory / "cloud")).stdout,
    )
    events = ("get", "events", "-o", "jsonpath={.items[?(@.reason=='NodeBanned')].involvedObject.name}")
    site.until(lambda: site.kubectl(kubectl, *events).stdout == "barred", "the Node has an Event")
    home = site.directory / "barred-2"
    refused = join(site, "barred", token, home=home)
    assert refused.returncode == 1
    assert "node barred is banned since" in refused.stderr, refused.stderr

    site.run("cloudcore", "node", "unban", "barred", *admin)
    site.processes["barred"].stop()
    site.start_edge("barred")
    assert join(site, "barred", token, home=home).returncode == 0
    replaced = "another machine has joined in its name"
    site.until(lambda: replaced in str(site.ask("edgecore", "barred").get("problem")), "the old machine is turned away")
    assert replica.stop() == 0


def test_a_token_in_a_file_is_gone_once_it_was_used(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(site.token("--nodes", "other") + "\n")
    words = [word for word in command(site, "filed", "-") if word not in ("--token", "-")]
    refused = site.run(*words, "--token-file", str(file), check=False)
    assert refused.returncode == 1
    assert "another node than filed" in refused.stderr
    file.write_text(site.token() + "\n")
    site.run(*words, "--token-file", str(file))
    assert not file.exists()
    gone = site.run(*words, "--token-file", str(file), check=False)
    assert f"cannot read {file}: No such file" in gone.stderr


def test_guesses_are_answered_a_few_times_and_then_sent_away(site: Site) -> None:
    """The last one here: it leaves this address without credit."""
    token = site.token()
    wrong = ".".join((*token.split(".")[:2], "A" * 43, pin_of(token)))
    hub = Hub(Endpoint("127.0.0.1", site.ports["join"]), 10.0)
    ca = hub.fetch_ca(pin_of(token))
    for _ in range(30):
        try:
            hub.join(ca, {"node": "guess", "csr": "", "token": wrong})
        except Busy as busy:
            assert busy.status == 429
            assert 0 < busy.wait_s <= 60
            break
        except Refused as refused:
            assert refused.status == 401
    else:
        pytest.fail("nobody was sent away")
    assert "node guess" not in site.processes["cloud"].log.read_text()
    # The CA is for everybody.
    assert hub.fetch_ca(pin_of(token)) == ca
