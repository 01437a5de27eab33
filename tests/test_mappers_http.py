"""The HTTP driver against a real web server in a process of its own, and in the mapper's."""

import base64
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from componentbase import pki
from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from mappers.driver import BadConfig, Device, DeviceSilent, Property, Reading, WriteRefused
from mappers.http import Http
from tests.harness.devices import a_device, a_property
from tests.harness.http_device import PASSWORD, TOKEN, USERNAME
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.harness.server import Server

LAMP = DeviceId("default", "lamp")


@pytest.fixture
def device() -> Iterator[Server]:
    with Server("tests.harness.http_device", "0") as one:
        yield one


def lamp(device: Server, settings: dict[str, object] | None = None, **properties: Property) -> Device:
    return a_device({"url": f"http://127.0.0.1:{device.port}", "timeout": 2, **(settings or {})}, **properties)


def asked(device: Server) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{device.port}/requests", timeout=5) as answer:
        requests: list[str] = json.loads(answer.read())["asked"]
        return requests


async def read(driver: Http, *names: str) -> dict[str, Reading]:
    """connect, read, close."""
    await driver.connect()
    try:
        return dict(await driver.read(names))
    finally:
        await driver.close()


# --- reading


async def test_one_request_serves_every_property_of_a_url(device: Server) -> None:
    driver = Http(
        lamp(
            device,
            power=a_property("BOOLEAN", url="/state", pointer="/power"),
            level=a_property("INT", url="/state", pointer="level"),
            temperature=a_property("FLOAT", url="/state", pointer="sensors.0.t", timePointer="/at"),
            missing=a_property("FLOAT", url="/state", pointer="/sensors/1/t"),
            plain=a_property("INT", url="/plain", format="text"),
        )
    )
    assert await read(driver, "power", "level", "temperature", "missing", "plain") == {
        "power": Reading(False),
        "level": Reading(7),
        "temperature": Reading(21.5, 1_700_000_000_000),
        "plain": Reading(7),
    }
    assert asked(device) == ["GET /state", "GET /plain"]


async def test_only_what_is_due_is_asked_for(device: Server) -> None:
    driver = Http(
        lamp(
            device,
            level=a_property("INT", url="/state", pointer="/level"),
            plain=a_property("INT", url="/plain", format="text"),
        )
    )
    assert set(await read(driver, "plain")) == {"plain"}
    assert asked(device) == ["GET /plain"]


async def test_urls_are_relative_to_the_devices_and_may_name_its_settings(device: Server) -> None:
    settings: dict[str, object] = {"url": f"http://127.0.0.1:{device.port}/x/y", "page": "state"}
    driver = Http(lamp(device, settings, level=a_property("INT", url="../{page}", pointer="/level")))
    assert await read(driver, "level") == {"level": Reading(7)}


async def test_a_property_that_cannot_be_read_disturbs_no_other_and_is_told_once(
    device: Server, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Http(
        lamp(
            device,
            level=a_property("INT", url="/state", pointer="/level"),
            absent=a_property("INT", url="/state", pointer="/no/such"),
            name=a_property("INT", url="/state", pointer="/name"),
            page=a_property("INT", url="/nowhere", pointer="/x"),
            broken=a_property("INT", url="/ill/broken?key=s3cret", pointer="/x"),
            nonsense=a_property("INT", url="/ill/no-json"),
            long=a_property("INT", url="/ill/big"),
            away=a_property("INT", url="/ill/moved-away"),
        )
    )
    names = ("level", "absent", "name", "page", "broken", "nonsense", "long", "away")
    for _ in range(2):
        assert await read(driver, *names) == {"level": Reading(7)}
    told = {vars(line)["property"]: vars(line)["reason"] for line in caplog.records}
    assert told == {
        "absent": 'there is no "no"',
        "name": '"lamp" is not a number',
        "page": "GET /nowhere: the device answers 404 Not Found",
        "broken": "GET /ill/broken: the device answers 503 Service Unavailable",
        "nonsense": "the answer cannot be used: it is not JSON (Expecting value): <html>",
        "long": "GET /ill/big: its answer has 1000000000 bytes, and maxBytes is 65536",
        "away": "GET /ill/moved-away: it redirects to http://127.0.0.2:9/state, and other hosts are not followed",
    }
    assert len(caplog.records) == len(told)


async def test_a_device_of_which_nothing_can_be_read_is_silent(device: Server) -> None:
    driver = Http(lamp(device, level=a_property("INT", url="/ill/broken", pointer="/level")))
    with pytest.raises(DeviceSilent, match=r"no property can be read; level: GET /ill/broken: .* 503"):
        await read(driver, "level")


@pytest.mark.parametrize("how", ["silent", "drip"])
async def test_a_device_that_does_not_come_to_an_end_is_silent(device: Server, how: str) -> None:
    driver = Http(lamp(device, {"timeout": 0.2}, level=a_property("INT", url=f"/ill/{how}")))
    with pytest.raises(DeviceSilent, match=rf"http://127.0.0.1:{device.port} does not answer within 0.2 s"):
        await read(driver, "level")


async def test_a_device_that_is_not_there_is_silent() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        driver = Http(a_device({"url": url}, level=a_property("INT", pointer="/level")))
        with pytest.raises(DeviceSilent, match=f"{url}: Connection refused"):
            await read(driver, "level")


# --- writing


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
async def test_a_value_is_written_with_a_body_from_a_template(device: Server, method: str) -> None:
    driver = Http(
        lamp(
            device,
            name=a_property(
                "STRING", writable=True, url="/state", pointer="/name", write=f"{method} /set", body='{"name": {json}}'
            ),
        )
    )
    await driver.connect()
    await driver.write("name", 'a "lamp"')
    assert await driver.read(["name"]) == {"name": Reading('a "lamp"')}
    await driver.close()


async def test_a_device_may_be_set_with_a_get_and_have_its_own_words(device: Server) -> None:
    power = a_property(
        "BOOLEAN",
        writable=True,
        url="/state",
        pointer="/power",
        write="GET /relay?turn={value}",
        values={"true": "on", "false": "off"},
    )
    switched = Http(lamp(device, power=power))
    await switched.connect()
    await switched.write("power", True)
    await switched.close()
    assert asked(device) == ["GET /relay?turn=on"]


async def test_what_can_only_be_written_is_reported_as_it_was_written(device: Server) -> None:
    level = a_property("INT", writable=True, write="PUT /set", body='{"level": {json}}')
    driver = Http(lamp(device, level=level))
    await driver.connect()
    assert await driver.read(["level"]) == {}
    await driver.write("level", 9)
    assert await driver.read(["level"]) == {"level": Reading(9)}
    await driver.close()
    assert asked(device) == ["PUT /set"]


@pytest.mark.parametrize(
    ("settings", "value", "words"),
    [
        ({"write": "PUT /set", "body": '{"level": {json}}'}, 101, "level: PUT /set: the device answers 422"),
        ({"write": "PUT /nowhere"}, 1, "level: PUT /nowhere: the device answers 404"),
        ({"write": "PUT /ill/move"}, 1, "level: PUT /ill/move: it redirects a PUT, which is not followed"),
        ({"write": "PUT /set", "values": {"1": "low"}}, 2, "level: `values` has no word for 2"),
    ],
)
async def test_a_refused_write_names_the_property_and_the_reason(
    device: Server, settings: dict[str, object], value: int, words: str
) -> None:
    level = a_property("INT", writable=True, url="/state", pointer="/level")
    driver = Http(lamp(device, level=level._replace(settings={**level.settings, **settings})))
    await driver.connect()
    with pytest.raises(WriteRefused, match=words):
        await driver.write("level", value)
    await driver.close()


# --- who is there


@pytest.mark.parametrize(
    "settings",
    [
        {"username": USERNAME, "password": PASSWORD},
        {"username": USERNAME, "passwordFile": "password"},
        {"token": TOKEN},
        {"tokenFile": "token"},
        {"headers": {"Authorization": f"Bearer {TOKEN}"}},
    ],
)
async def test_credentials_are_shown_to_the_device(
    device: Server, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_SECRETS", str(tmp_path))
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "token").write_text(TOKEN + "\n")
    driver = Http(lamp(device, settings, level=a_property("INT", url="/private", pointer="/level")))
    assert await read(driver, "level") == {"level": Reading(7)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "look at username and password, or token: there are none"),
        ({"username": USERNAME, "password": "wrong"}, "look at username and password"),
        ({"token": "wr0ng"}, "look at token"),
    ],
)
async def test_a_device_that_does_not_accept_them_is_silent_and_no_secret_is_told(
    device: Server, settings: dict[str, object], words: str
) -> None:
    driver = Http(lamp(device, settings, level=a_property("INT", url="/private?key=k3y", pointer="/level")))
    with pytest.raises(DeviceSilent, match=f"answers 401 Unauthorized to GET /private: {words}") as silence:
        await read(driver, "level")
    assert not any(secret in str(silence.value) for secret in ("wrong", "wr0ng", "k3y"))


async def test_a_secrets_file_that_is_not_there_is_told(device: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_SECRETS", "/no/such/directory")
    driver = Http(lamp(device, {"tokenFile": "lamp"}, level=a_property("INT", pointer="/level")))
    with pytest.raises(DeviceSilent, match="tokenFile: /no/such/directory/lamp: No such file"):
        await driver.connect()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A directory with `ca`, `cert` and `key` for 127.0.0.1."""
    ca = pki.create_ca("test", 1)
    server = pki.issue_server_cert(ca, ["127.0.0.1"], 1)
    for name, content in (("ca", ca.cert_pem), ("cert", server.cert_pem), ("key", server.key_pem)):
        (tmp_path / name).write_bytes(content)
    return tmp_path


async def test_https_is_verified_always(certificate: Path) -> None:
    level = a_property("INT", url="/state", pointer="/level")
    with Server("tests.harness.http_device", "0", str(certificate / "cert"), str(certificate / "key")) as device:
        url = f"https://127.0.0.1:{device.port}"
        known = Http(a_device({"url": url, "caFile": str(certificate / "ca")}, level=level))
        assert await read(known, "level") == {"level": Reading(7)}
        unknown = Http(a_device({"url": url}, level=level))
        with pytest.raises(DeviceSilent, match=r"its certificate is not trusted .*protocol.configData.caFile"):
            await read(unknown, "level")
        misnamed = Http(
            a_device({"url": f"https://localhost:{device.port}", "caFile": str(certificate / "ca")}, level=level)
        )
        with pytest.raises(DeviceSilent, match=r"its certificate is not trusted .*localhost"):
            await read(misnamed, "level")


# --- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": None}, "protocol.configData.url is missing"),
        ({"url": "lamp"}, "url must be http://HOST"),
        ({"url": "http://u:p4ss@lamp"}, "url must not hold a name and a password"),
        ({"username": "u"}, "username and password .* go together"),
        ({"username": "u", "password": "p", "token": "t"}, "token and username are there"),
        ({"username": "u:v", "password": "p"}, 'username must be without ":"'),
        ({"timeout": 20}, "timeout must be a number from 0.05 to 9"),
        ({"maxBytes": 1e9}, "maxBytes must be from 1 to 1048576"),
        ({"headers": {"X": "a\r\nb"}}, 'headers has "X", which is no header'),
        ({"headers": {"Host": "x"}}, "headers has Host, which the driver sets itself"),
        ({"caFile": "/ca"}, "caFile is for https"),
    ],
)
def test_a_device_that_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words) as refused:
        Http(a_device({"url": "http://lamp", **settings}, level=a_property("INT", pointer="/level")))
    assert "p4ss" not in str(refused.value)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (a_property("INT", url="http://elsewhere/x"), "level: visitors.configData.url must be a path on http://lamp"),
        (a_property("INT", url="//elsewhere/x"), "url must be a path on http://lamp"),
        (a_property("INT", url="{place}"), r"url \{place\} is not known here"),
        (a_property("INT", url="/x", pointr="/a"), "pointr is not known to this driver"),
        (a_property("INT", writable=True, url="/x"), "write is missing, .*; else the model must say ReadOnly"),
        (a_property("INT", writable=True, write="/x"), "write must be PUT, POST, PATCH or GET and a path"),
        (a_property("INT", writable=True, write="DELETE /x"), "write must be PUT"),
        (a_property("INT", writable=True, write="PUT http://elsewhere/"), "write must be a path on http://lamp"),
        (a_property("INT", writable=True, write="GET /on"), r"write is a GET, so \{value\} must stand in its path"),
        (a_property("INT", writable=True, write="PUT /x", body="{colour}"), r"body \{colour\} is not known here"),
        (a_property("INT", writable=True, write="PUT /x", body="{token}"), r"body \{token\} is not known here"),
        (a_property("INT", writable=True, write="PUT /x", contentType="a\r\nb"), "contentType must be a media type"),
    ],
)
def test_a_property_that_cannot_be_is_refused(level: Property, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Http(a_device({"url": "http://lamp", "token": "t"}, level=level))


@pytest.mark.parametrize("write", ["PUT /set", "PUT /names/{value}"])
async def test_a_text_that_is_no_unicode_is_refused(device: Server, write: str) -> None:
    driver = Http(lamp(device, name=a_property("STRING", writable=True, write=write, body="{value}")))
    await driver.connect()
    with pytest.raises(WriteRefused, match=r"name: .*surrogates not allowed"):
        await driver.write("name", "\ud800")
    await driver.close()
    assert asked(device) == []


async def test_a_value_cannot_lead_a_write_elsewhere(device: Server) -> None:
    name = a_property("STRING", writable=True, write="PUT /names/{value}")
    driver = Http(lamp(device, name=name))
    await driver.connect()
    with pytest.raises(WriteRefused, match="404"):
        await driver.write("name", "../set?x#//elsewhere/")
    await driver.close()
    assert asked(device) == ["PUT /names/..%2Fset%3Fx%23%2F%2Felsewhere%2F"]


# --- in the mapper's process


async def test_the_mapper_serves_a_device_that_is_killed_and_comes_back(device: Server, tmp_path: Path) -> None:
    def a_config(name: str, kind: str, **settings: object) -> PropertyConfig:
        writable = "write" in settings
        return PropertyConfig(name, kind, writable=writable, collect_cycle_ms=50)._replace(
            visitors=ProtocolConfig("http", {"url": "/private", **settings})
        )

    config = DeviceConfig(
        LAMP,
        "edge-1",
        "lamp",
        ProtocolConfig(
            "http", {"url": f"http://127.0.0.1:{device.port}", "username": USERNAME, "passwordFile": "lamp"}
        ),
        (
            a_config("power", "BOOLEAN", pointer="/power"),
            a_config("level", "INT", pointer="/level", write="PATCH /set", body='{"level": {json}}'),
        ),
    )
    (tmp_path / "lamp").write_text(PASSWORD)
    with (
        Mosquitto() as broker,
        MqttEdge(broker.port) as edge,
        MapperProcess(
            *("run", "http", "--mqtt", f"mqtt://127.0.0.1:{broker.port}"),
            directory=tmp_path,
            environment={"FAIRLEAD_SECRETS": str(tmp_path)},
        ) as mapper,
    ):
        edge.configure(config)
        await edge.until(lambda: edge.reported(LAMP) == {"power": "false", "level": "7"}, "the first report")
        edge.desire(LAMP, 1, level="70")
        await edge.until(lambda: edge.reported(LAMP)["level"] == "70", "the answer")
        edge.desire(LAMP, 2, level="101")
        await edge.until(lambda: edge.answered(LAMP, "level") == 2, "the refusal")
        assert edge.reported(LAMP)["level"] == "70"
        (refusal,) = [line for line in mapper.log() if line["message"] == "device refuses the desired value"]
        assert refusal["reason"] == "level: PATCH /set: the device answers 422 Unprocessable Entity"

        device.kill()  # first, or it may have taken what it then forgets
        edge.desire(LAMP, 3, level="71")
        await edge.until(lambda: edge.states_of(LAMP)[-1] == "offline", "offline")
        device.start()
        await edge.until(lambda: edge.states_of(LAMP)[-1] == "online", "online again")
        await edge.until(lambda: edge.reported(LAMP)["level"] == "71", "what was desired meanwhile")
        assert mapper.stop() == 0
        told = json.dumps(mapper.log())
        assert PASSWORD not in told
        assert base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode() not in told
        assert [line for line in mapper.log() if line["level"] in ("stray", "error", "critical")] == []
