"""Where an OPC UA server is, and how to know it."""

from pathlib import Path

import pytest

from apimachinery.objects import JSON
from mappers.opcendpoint import Endpoint, Security
from mappers.words import BadConfig, Device

URL = "opc.tcp://10.0.0.4:4840/device"
FILES: dict[str, JSON] = {
    "certificate": "/ca/clientcert.pem",
    "privateKey": "/ca/clientkey.pem",
    "remoteCertificate": "/ca/servercert.pem",
}


def an_endpoint(**settings: JSON) -> Endpoint:
    return Endpoint.of_device(Device("default/one", {"url": URL, **settings}, {}))


def test_the_url_is_enough() -> None:
    assert an_endpoint() == Endpoint(URL, 4.0, "", "", None)


def test_kubeedges_sample_is_read_as_it_stands() -> None:
    settings: dict[str, JSON] = {
        "userName": "testuser",
        "password": "/ca/pass",
        "securityMode": "Sign",
        "securityPolicy": "Basic256Sha256",
        "timeout": 9,
        "certificate": FILES["certificate"],
        "privateKey": FILES["privateKey"],
        "customizedValues": {"remoteCertificate": "/ca/servercert.pem", "def1": "x"},
    }
    files = [Path(f"/ca/{name}.pem") for name in ("clientcert", "clientkey", "servercert")]
    assert an_endpoint(**settings) == Endpoint(
        URL, 9.0, "testuser", "/ca/pass", Security("Basic256Sha256", "Sign", *files)
    )


def test_a_policy_alone_means_to_sign_and_encrypt() -> None:
    security = an_endpoint(securityPolicy="Aes256Sha256RsaPss", **FILES).security
    assert security is not None
    assert security.mode == "SignAndEncrypt"


def test_files_that_nothing_asks_for_are_no_mistake() -> None:
    assert an_endpoint(password="/ca/pass", **FILES) == an_endpoint()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "http://10.0.0.4"}, "url must be opc.tcp://HOST:PORT"),
        ({"url": "opc.tcp://me:secret@10.0.0.4"}, "url must be without a name and a password"),
        ({"url": None}, "url is missing"),
        ({"userName": "me"}, "password is missing"),
        ({"securityPolicy": "Basic256"}, "Basic256 is broken; use Basic256Sha256"),
        ({"securityPolicy": "Rot13"}, "securityPolicy must be"),
        ({"securityMode": "Sign"}, "securityMode Sign does not go with securityPolicy None"),
        ({"securityPolicy": "Basic256Sha256", "securityMode": "None"}, "None does not go with"),
        ({"securityPolicy": "Basic256Sha256"}, "certificate is missing"),
        ({"securityPolicy": "Basic256Sha256", **FILES, "remoteCertificate": None}, "remoteCertificate is missing"),
        ({"timeout": 0}, "timeout must be a number from 0.1 to 9"),
        ({"Url": URL}, "Url is not known to this driver"),
    ],
)
def test_what_cannot_work_is_refused_without_showing_a_secret(settings: dict[str, JSON], words: str) -> None:
    with pytest.raises(BadConfig, match=words) as caught:
        an_endpoint(**settings)
    assert "secret" not in str(caught.value)
