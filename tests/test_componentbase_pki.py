"""Keys and certificates: that strict verifiers take them, and that a request gets its key signed and nothing else."""

import base64
import contextlib
import ipaddress
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from componentbase import pki
from componentbase.pki import BadCertificate, CsrRefused, KeyPair

NODE, GROUP = "system:node:edge-7", "system:nodes"


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return pki.create_ca("fairlead-ca", days=3650)


def csr(
    key: Any = None,
    common_names: tuple[str, ...] = (NODE,),
    organizations: tuple[str, ...] = (GROUP,),
    extensions: tuple[x509.ExtensionType, ...] = (),
    more: tuple[x509.ObjectIdentifier, str] | None = None,
) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    names += [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names]
    names += [] if more is None else [x509.NameAttribute(*more)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def sign(ca: KeyPair, csr_pem: bytes) -> bytes:
    return pki.sign_client_csr(ca, csr_pem, NODE, GROUP, days=365)


def refusal(ca: KeyPair, csr_pem: bytes) -> str:
    with pytest.raises(CsrRefused) as caught:
        sign(ca, csr_pem)
    return caught.value.reason


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # as Python 3.13 has them
    return context


def load(context: ssl.SSLContext, pair: KeyPair, directory: Path) -> None:
    (directory / "tls.crt").write_bytes(pair.cert_pem)
    (directory / "tls.key").write_bytes(pair.key_pem)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, hostname: str) -> ssl.SSLObject:
    """Both sides in memory until both are done; the server's side, which has verified the client."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=hostname),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[1].version() == "TLSv1.3"
    return ends[1]


@pytest.mark.parametrize("hostname", ["hub.example.org", "10.0.0.1", "::1"])
def test_mutual_tls_with_strict_verification(ca: KeyPair, tmp_path: Path, hostname: str) -> None:
    pair = pki.issue_server_cert(ca, ["hub.example.org", "10.0.0.1", "::1", "10.0.0.1"], days=365)
    server = strict(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.cert_pem.decode()))
    server.verify_mode = ssl.CERT_REQUIRED
    load(server, pair, tmp_path)
    key_pem, csr_pem = pki.make_key_and_csr(NODE, GROUP)
    client = strict(ssl.create_default_context(cadata=ca.cert_pem.decode()))
    load(client, KeyPair(sign(ca, csr_pem), key_pem), tmp_path)

    peer = handshake(client, server, hostname).getpeercert()

    assert peer is not None
    assert peer["subject"] == ((("organizationName", GROUP),), (("commonName", NODE),))


def test_server_certificate_is_no_client_certificate(ca: KeyPair, tmp_path: Path) -> None:
    pair = pki.issue_server_cert(ca, ["hub"], days=1)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.cert_pem.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    load(server, pair, tmp_path)
    client = ssl.create_default_context(cadata=ca.cert_pem.decode())
    load(client, pair, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(client, server, "hub")


def test_certificate_says_who_until_when_and_for_what(ca: KeyPair) -> None:
    before = datetime.now(UTC)
    _key, csr_pem = pki.make_key_and_csr(NODE, GROUP)
    cert_pem = sign(ca, csr_pem)
    cert = x509.load_pem_x509_certificate(cert_pem)

    assert pki.common_name(cert_pem) == NODE
    assert abs(pki.not_after(cert_pem) - before - timedelta(days=365)) < timedelta(minutes=1)
    assert abs(before - timedelta(minutes=5) - cert.not_valid_before_utc) < timedelta(minutes=1)
    assert list(cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert cert.serial_number != x509.load_pem_x509_certificate(sign(ca, csr_pem)).serial_number


def test_certificate_does_not_outlive_its_ca() -> None:
    ca = pki.create_ca("short", days=2)
    pair = pki.issue_server_cert(ca, ["hub"], days=100)
    assert pki.not_after(pair.cert_pem) == pki.not_after(ca.cert_pem)


def test_expired_ca_signs_nothing() -> None:
    ca = pki.create_ca("over", days=-0.001)
    with pytest.raises(BadCertificate, match="the CA has expired"):
        sign(ca, csr())


def test_openssl_agrees(ca: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem)
    (tmp_path / "leaf.pem").write_bytes(sign(ca, csr()))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "leaf.pem: OK\n", done.stderr


def test_server_certificate_needs_a_name(ca: KeyPair) -> None:
    with pytest.raises(ValueError, match="needs a name or an address"):
        pki.issue_server_cert(ca, [], days=1)


def test_private_key_does_not_show(ca: KeyPair) -> None:
    assert "PRIVATE" not in repr(ca)
    assert "CERTIFICATE" in repr(ca)


# ---- requests


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-384", "RSA 2048", "Ed25519"],
)
def test_strong_keys_of_other_kinds_are_signed(ca: KeyPair, make: Callable[[], Any]) -> None:
    key = make()
    cert = x509.load_pem_x509_certificate(sign(ca, csr(key)))
    assert cert.public_key() == key.public_key()


def test_request_without_organisation_gets_the_signers(ca: KeyPair) -> None:
    cert = x509.load_pem_x509_certificate(sign(ca, csr(organizations=())))
    assert cert.subject.rfc4514_string() == f"CN={NODE},O={GROUP}"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: csr(common_names=("system:node:edge-8",)), "its common name is 'system:node:edge-8' instead of"),
        (lambda: csr(common_names=()), "its common name is missing instead of"),
        (lambda: csr(common_names=(NODE, NODE)), "its common name is"),
        (lambda: csr(organizations=("system:masters",)), "its organisation is 'system:masters' instead of"),
        (lambda: csr(organizations=(GROUP, "system:masters")), "its organisation is"),
        (lambda: csr(ec.generate_private_key(ec.SECP192R1())), "the curve secp192r1 is not allowed"),
        (lambda: csr(ec.generate_private_key(ec.SECP256K1())), "the curve secp256k1 is not allowed"),
        (lambda: csr(ec.generate_private_key(ec.SECP521R1())), "use P-256 or P-384"),
        (lambda: csr(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits is not allowed"),  # noqa: S505
        (lambda: csr(dsa.generate_private_key(2048)), "its kind of key is not allowed"),
        (lambda: csr(extensions=(x509.BasicConstraints(ca=True, path_length=None),)), "it asks to be a CA"),
        (
            lambda: csr(extensions=(x509.KeyUsage(False, False, False, False, False, True, False, False, False),)),
            "it asks for the right to sign certificates",
        ),
        (lambda: csr(more=(NameOID.ORGANIZATIONAL_UNIT_NAME, "x")), "its subject has more than a common name and an"),
        (lambda: csr(extensions=(x509.SubjectAlternativeName([x509.DNSName("a")]),)), "the extension 2.5.29.17, which"),
        (
            lambda: csr(extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)),
            "the extension 2.5.29.37, which it will not get",
        ),
        (
            lambda: csr(extensions=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"),)),
            "the extension 1.2.3.4, which",
        ),
        (lambda: b"", "it is not a certificate signing request in PEM form"),
        (lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "it is not a"),
        (lambda: pki.create_ca("x", 1).cert_pem, "it is not a certificate signing request in PEM form"),
        (lambda: csr() + b" " * pki.CSR_BYTES_MAX, "it is larger than 16384 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_request_for_anything_else_is_refused(ca: KeyPair, make: Callable[[], bytes], says: str) -> None:
    assert says in refusal(ca, make())


def test_request_signed_with_another_key_is_refused(ca: KeyPair) -> None:
    der = bytearray(x509.load_pem_x509_csr(csr()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der))
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    assert refusal(ca, pem) == "its signature does not belong to its key"


def test_a_request_may_ask_for_what_it_will_get(ca: KeyPair) -> None:
    wishes = (
        x509.BasicConstraints(ca=False, path_length=None),
        x509.KeyUsage(True, False, True, False, False, False, False, False, False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
    )
    cert = x509.load_pem_x509_certificate(sign(ca, csr(extensions=wishes)))
    assert not cert.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment


def test_a_request_is_made_for_a_key_that_is_there(ca: KeyPair) -> None:
    key_pem, csr_pem = pki.make_key_and_csr(NODE, GROUP)
    again = pki.make_csr(key_pem, NODE, GROUP)
    assert pki.key_id(sign(ca, again)) == pki.key_id(sign(ca, csr_pem)) != pki.key_id(sign(ca, csr()))
    for pem in (b"", b"rubbish", csr_pem):
        with pytest.raises(pki.PkiError, match="not a private key"):
            pki.make_csr(pem, NODE, GROUP)
    strange = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(pki.PkiError, match="not an EC key"):
        pki.make_csr(strange, NODE, GROUP)


# ---- reading


def test_fingerprint_is_the_digest_of_the_der(ca: KeyPair) -> None:
    expected = x509.load_pem_x509_certificate(ca.cert_pem).fingerprint(hashes.SHA256()).hex()
    assert pki.fingerprint(ca.cert_pem) == expected
    assert pki.fingerprint(b"a comment\n" + ca.cert_pem + pki.create_ca("y", 1).cert_pem) == expected


def test_what_is_no_certificate_is_told(ca: KeyPair) -> None:
    with pytest.raises(BadCertificate, match="there is no certificate"):
        pki.fingerprint(ca.key_pem)
    with pytest.raises(BadCertificate, match="damaged"):
        pki.fingerprint(b"-----BEGIN CERTIFICATE-----\n\xff!\n-----END CERTIFICATE-----\n")
    with pytest.raises(BadCertificate, match="not a certificate in PEM form"):
        pki.common_name(b"x")
    with pytest.raises(BadCertificate, match="not a certificate in PEM form"):
        pki.not_after(ca.key_pem)


def test_ca_with_a_key_of_another_kind_is_refused(ca: KeyPair) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(BadCertificate, match="not an EC key"):
        sign(KeyPair(ca.cert_pem, pem), csr())


def test_certificate_without_one_common_name_is_told(ca: KeyPair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(BadCertificate, match="has 0 common names instead of one"):
        pki.common_name(cert.public_bytes(serialization.Encoding.PEM))


# ---- requests as they are


def test_a_request_says_whom_it_is_for_and_is_signed_as_it_stands(ca: KeyPair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.RFC822Name("a@b.c")]
    subject = x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in ("one", "two")),
            x509.NameAttribute(NameOID.COMMON_NAME, "jane"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    wanted = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    pem = wanted.public_bytes(serialization.Encoding.PEM)
    told = pki.read_csr(pem)
    assert told[:3] == ("jane", ("one", "two"), ("DNS:a.example", "IP:192.0.2.1", "email:a@b.c"))
    signed = pki.sign_as_requested(ca, pem, ["client auth", "key encipherment"], 1)
    assert pki.subject_of(signed) == ("jane", ("one", "two"))
    assert pki.key_id(signed) == told.key
    found = x509.load_pem_x509_certificate(signed).extensions
    assert list(found.get_extension_for_class(x509.SubjectAlternativeName).value) == names
    assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert found.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    with pytest.raises(CsrRefused, match="not a certificate signing request"):
        pki.read_csr(signed)


def test_a_chain_leads_to_who_signed_it_and_to_nobody_else(ca: KeyPair) -> None:
    top, other = pki.create_ca("top", 1, 1), pki.create_ca("other", 1)
    below = pki.cross_sign(top, ca.cert_pem, 1)
    leaf = pki.issue_server_cert(ca, ["localhost"], 1).cert_pem
    assert pki.leads_to(leaf, other.cert_pem + ca.cert_pem)
    assert pki.leads_to(leaf + below, top.cert_pem)
    assert not pki.leads_to(leaf, top.cert_pem)
    assert not pki.leads_to(leaf + other.cert_pem + below, top.cert_pem), "what follows has signed what it follows"
    with pytest.raises(BadCertificate, match="damaged"):
        pki.leads_to(b"hello", ca.cert_pem)


# ---- one CA in another's place


def test_whoever_trusts_the_second_ca_trusts_what_the_first_signed_and_it_signs_no_further_ca() -> None:
    first, second = pki.create_ca("first", 10), pki.create_ca("second", 5, 1)
    cross = x509.load_pem_x509_certificate(pki.cross_sign(second, first.cert_pem, 30))
    own, issuer = (x509.load_pem_x509_certificate(each.cert_pem) for each in (first, second))
    assert (cross.subject, cross.public_key()) == (own.subject, own.public_key())
    cross.verify_directly_issued_by(issuer)
    assert cross.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert cross.not_valid_after_utc == issuer.not_valid_after_utc, "no certificate outlives its CA"
    usages = cross.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH], "no node of the first one gets in by it"
    short = x509.load_pem_x509_certificate(pki.cross_sign(second, first.cert_pem, 1))
    assert short.not_valid_after_utc < datetime.now(UTC) + timedelta(days=1, minutes=1), "it cannot be taken back"


def test_a_ca_that_has_expired_signs_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ca, other = pki.create_ca("fairlead", 1), pki.create_ca("other", 1)
    _, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    monkeypatch.setattr(pki, "_now", lambda: later)
    for sign in (
        lambda: pki.sign_client_csr(ca, csr, "system:node:edge-1", "system:nodes", 1),
        lambda: pki.issue_server_cert(ca, ["localhost"], 1),
        lambda: pki.cross_sign(ca, other.cert_pem, 1),
    ):
        with pytest.raises(pki.CaExpired, match="the CA has expired on 20"):
            sign()


def pem_of(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def test_a_request_of_a_version_that_there_is_not_is_refused(ca: KeyPair) -> None:
    """Found by fuzzing: the library's InvalidVersion is no ValueError."""
    der = x509.load_pem_x509_csr(csr()).public_bytes(serialization.Encoding.DER)
    assert der.count(b"\x02\x01\x00") >= 1
    refused = refusal(ca, pem_of(der.replace(b"\x02\x01\x00", b"\x02\x01\x10", 1)))
    assert refused == "it is not a certificate signing request in PEM form"


def test_a_request_whose_subject_is_no_text_is_refused_though_it_is_signed(ca: KeyPair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good = x509.load_pem_x509_csr(csr(key))
    told = good.tbs_certrequest_bytes.replace(b"system:node:", b"\xff\xfe\xfdtem:node:", 1)
    signature = key.sign(told, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    content = told + algorithm + bytes((3, len(signature) + 1, 0)) + signature
    refused = refusal(ca, pem_of(b"\x30\x81" + len(content).to_bytes(1) + content))
    assert refused == "its subject cannot be read"


# ---- verifying, where TLS leaves it to its caller


def test_trusted_verifies_clients_and_servers_each_by_their_purpose_and_name() -> None:
    ca = pki.create_ca("ca", 1)
    key, csr = pki.make_key_and_csr("system:node:n", "system:nodes")
    client_pem = pki.sign_client_csr(ca, csr, "system:node:n", "system:nodes", 1)
    [client], _ = pki.read_pair(client_pem + key)
    server = pki.issue_server_cert(ca, ["hub.example", "10.0.0.1"], 1)
    chain, _ = pki.read_pair(server.cert_pem + server.key_pem)
    trusted = pki.Trusted(ca.cert_pem)
    assert trusted.client([client]) == pki.Shown("system:node:n", ("system:nodes",), pki.key_id(client_pem))
    for name in ("hub.example", "10.0.0.1"):
        assert trusted.server(chain, name).common_name == "hub.example"
    refusals: list[Callable[[], pki.Shown]] = [
        lambda: trusted.client(chain),
        lambda: trusted.client([]),
        lambda: trusted.client([client] * (pki.CHAIN_MAX + 1)),
        lambda: trusted.server([client], "hub.example"),
        lambda: trusted.server(chain, "other.example"),
        lambda: trusted.server(chain, "10.0.0.2"),
        lambda: trusted.server(chain, "no name\n"),
        lambda: pki.Trusted(pki.create_ca("ca", 1).cert_pem).client([client]),
    ]
    for refused in refusals:
        with pytest.raises(pki.BadCertificate):
            refused()


def test_a_pair_is_a_certificate_and_its_own_key() -> None:
    first, second = (pki.issue_server_cert(pki.create_ca("ca", 1), ["a"], 1) for _ in range(2))
    for pem in (first.cert_pem, first.key_pem, b"", first.cert_pem + b"-----BEGIN PRIVATE KEY-----\nxx"):
        with pytest.raises(pki.BadCertificate, match="not a certificate and its key"):
            pki.read_pair(pem)
    with pytest.raises(pki.BadCertificate, match="not the certificate's"):
        pki.read_pair(first.cert_pem + second.key_pem)
    with pytest.raises(pki.BadCertificate, match="no CA certificate"):
        pki.Trusted(b"")
