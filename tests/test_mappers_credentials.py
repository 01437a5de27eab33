"""Secrets from settings and files, and certificates."""

import ssl
from pathlib import Path

import pytest

from componentbase import pki
from mappers.credentials import SECRET_BYTES, Account, Secret, Unusable, basic, bearer, tls_context
from mappers.driver import BadConfig
from mappers.settings import Settings


def settings(**values: object) -> Settings:
    return Settings("protocol.configData", values)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The secrets directory."""
    monkeypatch.setenv("FAIRLEAD_SECRETS", str(tmp_path))
    return tmp_path


def test_a_secret_stands_in_the_settings_or_in_a_file(secrets: Path) -> None:
    (secrets / "boiler").write_text("s3cret\n")
    assert Secret(settings(password="open"), "password").reveal() == "open"
    assert Secret(settings(passwordFile="boiler"), "password").reveal() == "s3cret"
    assert not Secret(settings(), "password")


def test_a_changed_file_counts_at_the_next_look(secrets: Path) -> None:
    secret = Secret(settings(tokenFile="t"), "token")
    (secrets / "t").write_text("one")
    assert secret.reveal() == "one"
    (secrets / "t").write_text("two")
    assert secret.reveal() == "two"


def test_systemds_directory_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLEAD_SECRETS", raising=False)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "t").write_text("of systemd")
    assert Secret(settings(tokenFile="t"), "token").reveal() == "of systemd"


@pytest.mark.parametrize("name", ["/etc/shadow", "../x", "a/b", ".", "..", ".hidden", "a\n", 3])
def test_a_device_cannot_name_a_file_elsewhere(name: object) -> None:
    with pytest.raises(BadConfig, match="tokenFile must be"):
        Secret(settings(tokenFile=name), "token")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "must hold 1 to 4096 characters"),
        (b"x" * (SECRET_BYTES + 1), "must hold 1 to 4096 characters"),
        (b"\xff", "it is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_path(secrets: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (secrets / "t").write_bytes(content)
    with pytest.raises(Unusable, match=rf"protocol.configData.tokenFile: {secrets}/t:? .*{words}"):
        Secret(settings(tokenFile="t"), "token").reveal()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"username": "u"}, "username and password .* go together"),
        ({"password": "p"}, "username and password .* go together"),
        ({"username": "u", "password": "p", "passwordFile": "f"}, "passwordFile and password are there: one of them"),
    ],
)
def test_an_account_is_whole_or_none(values: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Account.read(settings(**values))


def test_headers_are_those_of_the_rfcs(secrets: Path) -> None:
    account = Account.read(settings(username="Aladdin", password="open sesame"))
    assert basic(account) == ("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")  # RFC 7617, section 2
    assert bearer(Secret(settings(token="mF_9.B5f-4.1JqM"), "token")) == ("Authorization", "Bearer mF_9.B5f-4.1JqM")
    with pytest.raises(Unusable, match="characters that cannot be in a header"):
        bearer(Secret(settings(token="a\r\nX: y"), "token"))


def test_nothing_shows_a_secret() -> None:
    one = settings(username="u", password="s3cret", token="t0ken")
    shown = f"{Account.read(one)!r} {Secret(one, 'token')!r}"
    assert "s3cret" not in shown
    assert "t0ken" not in shown


def test_certificates_are_verified_and_contexts_shared(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(pki.create_ca("test", 1).cert_pem)
    context = tls_context(str(path))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls_context(str(path)) is context
    assert tls_context("").verify_mode is ssl.CERT_REQUIRED


def test_a_ca_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="caFile: /no/such/ca: No such file"):
        tls_context("/no/such/ca")
    (tmp_path / "ca").write_text("nonsense")
    with pytest.raises(Unusable, match="ca holds no certificate in PEM"):
        tls_context(str(tmp_path / "ca"))
