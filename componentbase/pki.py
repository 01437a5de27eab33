"""
Keys and certificates: one CA per installation, server certificates, and client certificates whose common name is who
the client is.

Everything is PEM in bytes; new keys are EC P-256. Certificates carry the extensions that a strict verifier asks for
(RFC 5280; Python 3.13 sets VERIFY_X509_STRICT by default).

Invariants
    a request decides nothing but its key: name, organisation, usage and lifetime are the signer's
    a private key never shows in a repr, a log or an error
    no certificate outlives its CA

The home of `cryptography`'s certificates (of its ciphers: componentbase.sealing). Importing it costs about 9 MB, so a
process that runs for long imports this module inside the command that needs it; TLS itself is the ssl module's and
needs none of this.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.x509 import DNSName, IPAddress
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    ServerVerifier,
    Store,
    VerificationError,
)

from componentbase.certificates import BACKDATE, fingerprints
from componentbase.words import rfc3339

CSR_BYTES_MAX = 16 << 10  # a request with an RSA key of 8192 bits is under 3 KB
RSA_BITS_MIN = 2048  # NIST SP 800-57 part 1: 112 bits of strength
RSA_BITS_MAX = 8192  # beyond, checking a signature becomes a way to keep the signer busy

Certificate = x509.Certificate
"""One that was read; for those who have it from a TLS library of Python's."""

CHAIN_MAX = 8  # certificates that are looked at: a leaf and its cross-signatures, and there are two CAs at most

_COMMON_NAME_MAX = 64  # RFC 5280, ub-common-name


class PkiError(Exception):
    """What was given is not what it should be."""


class BadCertificate(PkiError):
    """Not a certificate, or not one for this use: ask for another one."""


class CaExpired(BadCertificate):
    """The CA signs nothing any more: another one has to take its place."""


class CsrRefused(PkiError):
    """The request cannot be signed as it is; the client has to make another one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class KeyPair:
    """A certificate and the private key that belongs to it."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    """PKCS #8, not encrypted: keep it in a file of mode 0600 or in a Secret."""


# ---- making


def create_ca(common_name: str, days: float, below: int = 0) -> KeyPair:
    """A self-signed CA. below: how many further CAs may stand between it and a leaf, see cross_sign()."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    start = _now()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue_server_cert(ca: KeyPair, names: Iterable[str], days: float) -> KeyPair:
    """
    A key and a certificate for a server that is reached under these DNS names and IP addresses.

    The first one becomes the common name. Raises ValueError where there is none, or one is neither.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise ValueError("a server certificate needs a name or an address")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(ca, _name(names[0][:_COMMON_NAME_MAX]), key.public_key(), [ExtendedKeyUsageOID.SERVER_AUTH], days)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    return KeyPair(_pem(leaf.sign(_signing_key(ca), hashes.SHA256())), _key_pem(key))


def make_key_and_csr(common_name: str, organization: str) -> tuple[bytes, bytes]:
    """A new private key, and a request for a client certificate in this name: (key_pem, csr_pem)."""
    key_pem = _key_pem(ec.generate_private_key(ec.SECP256R1()))
    return key_pem, make_csr(key_pem, common_name, organization)


def make_csr(key_pem: bytes, common_name: str, organization: str) -> bytes:
    """A request, PEM, for a certificate in this name and for this key. Raises PkiError where it is no EC key."""
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise PkiError("it is not a private key in PEM form") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError("it is not an EC key")
    csr = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name, organization))
    return csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def create_signing_key() -> bytes:
    """A new private key to sign tokens with (ES256), PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def sign_client_csr(ca: KeyPair, csr_pem: bytes, expect_cn: str, organization: str, days: float) -> bytes:
    """
    The client certificate for a request from a client that is known to be expect_cn; PEM. Raises CsrRefused.

    The request must be signed with its key, name no other client and ask for nothing that it would not get; what is
    different is refused rather than replaced, for its sender expects something else.
    """
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    key = _checked_request(csr_pem, expect_cn, organization, usage)
    leaf = _leaf(ca, _name(expect_cn, organization), key, [usage], days)
    return _pem(leaf.sign(_signing_key(ca), hashes.SHA256()))


def sign_server_csr(
    ca: KeyPair, csr_pem: bytes, expect_cn: str, organization: str, names: Iterable[str], days: float
) -> bytes:
    """
    The server certificate for a request from a client that is known to be expect_cn; PEM. Raises CsrRefused.

    names: DNS names and addresses under which it is valid; the request has no say in them. The subject is the client's,
    so that nobody takes this server for one of the signer's own.
    """
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    key = _checked_request(csr_pem, expect_cn, organization, usage)
    leaf = _leaf(ca, _name(expect_cn, organization), key, [usage], days)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    return _pem(leaf.sign(_signing_key(ca), hashes.SHA256()))


def cross_sign(ca: KeyPair, other_pem: bytes, days: float) -> bytes:
    """
    A certificate, PEM, by which whoever trusts `ca` trusts what another CA signed: its name and key, signed by `ca`.

    The other one signs servers only, by this way, and no CAs. It cannot be taken back, and everybody is shown it: so
    not for longer than `days`. Raises BadCertificate, CaExpired where `ca` has.
    """
    other, issuer = _read_cert(other_pem), _read_cert(ca.cert_pem)
    start = _now()
    if issuer.not_valid_after_utc <= start:
        raise CaExpired(f"the CA has expired on {rfc3339(issuer.not_valid_after_utc)}")
    builder = (
        x509.CertificateBuilder()
        .subject_name(other.subject)
        .issuer_name(issuer.subject)
        .public_key(other.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(
            max(
                start,
                min(other.not_valid_after_utc, issuer.not_valid_after_utc, start + timedelta(days=days)),
            )
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(other.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value, critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )
    return _pem(builder.sign(_signing_key(ca), hashes.SHA256()))


# ---- reading


def fingerprint(cert_pem: bytes) -> str:
    """SHA-256 of the first certificate's DER, 64 hexadecimal digits. Raises BadCertificate."""
    try:
        found = fingerprints(cert_pem)
    except ValueError as exc:
        raise BadCertificate("the PEM text is damaged") from exc
    if not found:
        raise BadCertificate("there is no certificate in PEM form")
    return found[0]


def common_name(cert_pem: bytes) -> str:
    """The subject's one common name. Raises BadCertificate."""
    names = _common_names(_read_cert(cert_pem).subject)
    if len(names) != 1:
        raise BadCertificate(f"the certificate has {len(names)} common names instead of one")
    return names[0]


def subject_of(cert_pem: bytes) -> tuple[str, tuple[str, ...]]:
    """The common name and the organizations of the first certificate. Raises BadCertificate."""
    subject = _read_cert(cert_pem).subject
    return common_name(cert_pem), tuple(_organizations(subject))


def leads_to(chain_pem: bytes, trusted_pem: bytes) -> bool:
    """
    Whether the first certificate is signed by one of those that are trusted, by way of those that follow it.

    A hint for people and no verification: nobody is let in by it. Raises BadCertificate.
    """
    try:
        chain, trusted = (x509.load_pem_x509_certificates(pem) for pem in (chain_pem, trusted_pem))
    except ValueError as exc:
        raise BadCertificate("the PEM text is damaged") from exc
    for at, each in enumerate(chain):
        if any(_is_signed_by(each, ca) for ca in trusted):
            return True
        if at + 1 == len(chain) or not _is_signed_by(each, chain[at + 1]):
            return False
    return False


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def not_after(cert_pem: bytes) -> datetime:
    """The last moment at which the certificate is valid, in UTC. Raises BadCertificate."""
    return _read_cert(cert_pem).not_valid_after_utc


def key_id(cert_pem: bytes) -> str:
    """Which key a certificate is for: SHA-256 of its SubjectPublicKeyInfo in hexadecimal. Raises BadCertificate."""
    return _id_of(_read_cert(cert_pem).public_key())


def _id_of(key: CertificatePublicKeyTypes) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def read_pair(pem: bytes) -> tuple[list[Certificate], PrivateKeyTypes]:
    """A chain of certificates, and the key of the first one; for a TLS library of Python's. Raises BadCertificate."""
    at = pem.find(b"-----BEGIN ", pem.rfind(b"-----END CERTIFICATE-----"))
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        key = serialization.load_pem_private_key(pem[max(at, 0) :], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise BadCertificate("it is not a certificate and its key in PEM form") from exc
    if key.public_key() != certificates[0].public_key():
        raise BadCertificate("the key is not the certificate's")
    return certificates, key


def encoded(chain: Iterable[Certificate]) -> tuple[bytes, ...]:
    """Each as DER, which takes a fraction of the memory of one that was looked at."""
    return tuple(each.public_bytes(serialization.Encoding.DER) for each in chain)


def decoded(chain: Iterable[bytes]) -> list[Certificate]:
    """What encoded() made of them."""
    return [x509.load_der_x509_certificate(each) for each in chain]


# ---- verifying


@dataclass(frozen=True)
class Shown:
    """Whom a certificate that was verified names."""

    common_name: str
    organizations: tuple[str, ...]
    key_id: str
    """As key_id()."""


class Trusted:
    """
    CAs, and what is verified by them: as the ssl module's contexts verify, for a TLS that leaves it to its caller.

    Checked are the chain, with what the other side showed between, every certificate's validity, and that each may be
    used so: made for clients, or for servers of this name.
    """

    def __init__(self, trusted_pem: bytes) -> None:
        """trusted_pem: one CA or several. Raises BadCertificate."""
        try:
            self._store = Store(x509.load_pem_x509_certificates(trusted_pem))
        except ValueError as exc:
            raise BadCertificate("there is no CA certificate in PEM form") from exc

    def client(self, chain: Sequence[x509.Certificate]) -> Shown:
        """chain: as shown, the client's own first. Raises BadCertificate."""
        # Clients are told apart by their subject, and a cluster's CA may have no key identifier for them to name;
        # browsers' rules, which are the default, ask for both.
        leaf = ExtensionPolicy.webpki_defaults_ee()
        for extension in (x509.SubjectAlternativeName, x509.AuthorityKeyIdentifier):
            leaf = leaf.may_be_present(extension, Criticality.AGNOSTIC, None)
        policy = PolicyBuilder().store(self._store)
        policy = policy.extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf)
        return _verified(chain, policy.build_client_verifier())

    def server(self, chain: Sequence[x509.Certificate], name: str) -> Shown:
        """name: DNS name or address that it must be for. Raises BadCertificate."""
        subject: DNSName | IPAddress
        try:
            subject = IPAddress(ipaddress.ip_address(name))
        except ValueError:
            subject = DNSName(name)
        try:
            verifier = PolicyBuilder().store(self._store).build_server_verifier(subject)
        except ValueError as exc:
            raise BadCertificate(f"no certificate is for {name!r}: it is neither a name nor an address") from exc
        return _verified(chain, verifier)


def _verified(chain: Sequence[x509.Certificate], verifier: ClientVerifier | ServerVerifier) -> Shown:
    if not chain:
        raise BadCertificate("no certificate was shown")
    if len(chain) > CHAIN_MAX:
        raise BadCertificate(f"a chain of {len(chain)} certificates is over {CHAIN_MAX}")
    try:
        verifier.verify(chain[0], list(chain[1:]))
        names, key = _common_names(chain[0].subject), _id_of(chain[0].public_key())
        organizations = tuple(_organizations(chain[0].subject))
    except (VerificationError, ValueError, UnsupportedAlgorithm) as exc:
        raise BadCertificate(str(exc).partition(" (encountered")[0]) from exc
    if len(names) != 1:
        raise BadCertificate(f"the certificate has {len(names)} common names instead of one")
    return Shown(names[0], organizations, key)


# ---- requests as they are


class Requested(NamedTuple):
    """What a signing request asks for; it was signed with the key that it is for."""

    common_name: str
    """"" where there is none, the first where there are several."""
    organizations: tuple[str, ...]
    names: tuple[str, ...]
    """Its subject alternative names, of whatever kind: "DNS:a.example"."""
    key: str
    """See key_id()."""


def read_csr(csr_pem: bytes) -> Requested:
    """Raises CsrRefused for what is no request, or for a key that nothing here would sign."""
    csr = _read_csr(csr_pem)
    key = _checked_key(csr)
    _check_signature(csr)
    try:
        names, organizations = _common_names(csr.subject), _organizations(csr.subject)
        alternative = _alternative_names(csr)
    except ValueError as exc:
        raise CsrRefused("its subject cannot be read") from exc
    return Requested(names[0] if names else "", tuple(organizations), tuple(map(_told_name, alternative)), _id_of(key))


def requested_key(csr_pem: bytes, expect_cn: str, organization: str) -> str:
    """The key, see key_id(), of a request that sign_client_csr() would sign. Raises CsrRefused."""
    return _id_of(_checked_request(csr_pem, expect_cn, organization, ExtendedKeyUsageOID.CLIENT_AUTH))


def sign_as_requested(ca: KeyPair, csr_pem: bytes, usages: Iterable[str], days: float) -> bytes:
    """
    The certificate, PEM, with the subject and the names that a request asks for. Raises CsrRefused, CaExpired.

    usages: "client auth", "server auth", "digital signature", "key encipherment", as Kubernetes names them. Whether it
    may have what it asks for, the caller has judged.
    """
    csr = _read_csr(csr_pem)
    key = _checked_key(csr)
    _check_signature(csr)
    wanted = set(usages)
    uses = [oid for name, oid in _EXTENDED.items() if name in wanted]
    leaf = _leaf(ca, csr.subject, key, uses, days, key_encipherment="key encipherment" in wanted)
    if names := _alternative_names(csr):
        leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=not csr.subject)
    return _pem(leaf.sign(_signing_key(ca), hashes.SHA256()))


_EXTENDED = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}


def _alternative_names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise CsrRefused("its extensions cannot be read") from exc


def _told_name(name: x509.GeneralName) -> str:
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "email"}
    return f"{kinds.get(type(name), 'URI')}:{name.value}"


# ---- checks of a request


_ClientKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def _checked_request(csr_pem: bytes, expect_cn: str, organization: str, usage: x509.ObjectIdentifier) -> _ClientKey:
    """The key of a request that may be signed. Raises CsrRefused."""
    csr = _read_csr(csr_pem)
    key = _checked_key(csr)  # before the signature: what a large key costs is known by then
    _check_signature(csr)
    _check_subject(csr, expect_cn, organization)
    _check_wishes(csr, usage)
    return key


def _read_csr(csr_pem: bytes) -> x509.CertificateSigningRequest:
    if len(csr_pem) > CSR_BYTES_MAX:
        raise CsrRefused(f"it is larger than {CSR_BYTES_MAX} bytes")
    try:
        return x509.load_pem_x509_csr(csr_pem)
    except (ValueError, x509.InvalidVersion) as exc:
        raise CsrRefused("it is not a certificate signing request in PEM form") from exc


def _checked_key(csr: x509.CertificateSigningRequest) -> _ClientKey:
    try:
        key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CsrRefused("its key cannot be read") from exc
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return key
        case ec.EllipticCurvePublicKey():
            raise CsrRefused(f"the curve {key.curve.name} is not allowed: use P-256 or P-384")
        case rsa.RSAPublicKey() if RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            return key
        case rsa.RSAPublicKey():
            raise CsrRefused(f"an RSA key of {key.key_size} bits is not allowed: {RSA_BITS_MIN} to {RSA_BITS_MAX}")
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            raise CsrRefused("its kind of key is not allowed: use EC P-256, Ed25519 or RSA")


def _check_signature(csr: x509.CertificateSigningRequest) -> None:
    try:
        valid = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise CsrRefused("its signature cannot be checked") from exc
    if not valid:
        raise CsrRefused("its signature does not belong to its key")


def _check_subject(csr: x509.CertificateSigningRequest, expect_cn: str, organization: str) -> None:
    try:
        names = _common_names(csr.subject)  # it is parsed only now
    except ValueError as exc:
        raise CsrRefused("its subject cannot be read") from exc
    if names != [expect_cn]:
        raise CsrRefused(f"its common name is {', '.join(map(repr, names)) or 'missing'} instead of {expect_cn!r}")
    organizations = _organizations(csr.subject)
    if organizations not in ([], [organization]):
        raise CsrRefused(f"its organisation is {', '.join(map(repr, organizations))} instead of {organization!r}")
    if len(csr.subject) != len(names) + len(organizations):
        raise CsrRefused("its subject has more than a common name and an organisation")


def _check_wishes(csr: x509.CertificateSigningRequest, usage: x509.ObjectIdentifier) -> None:
    """Only what the certificate will have anyway may be asked for; others would be disappointed, or worse."""
    try:
        extensions = list(csr.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise CsrRefused("its extensions cannot be read") from exc
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise CsrRefused("it asks to be a CA")
            case x509.KeyUsage(key_cert_sign=True) | x509.KeyUsage(crl_sign=True):
                raise CsrRefused("it asks for the right to sign certificates")
            case x509.BasicConstraints() | x509.KeyUsage() | x509.SubjectKeyIdentifier():
                pass
            case x509.ExtendedKeyUsage() as wished if set(wished) <= {usage}:
                pass
            case _:
                raise CsrRefused(f"it asks for the extension {extension.oid.dotted_string}, which it will not get")


# ---- parts of a certificate


def _leaf(
    ca: KeyPair,
    subject: x509.Name,
    key: _ClientKey,
    usages: Iterable[x509.ObjectIdentifier],
    days: float,
    *,
    key_encipherment: bool = False,
) -> x509.CertificateBuilder:
    issuer = _read_cert(ca.cert_pem)
    start = _now()
    end = min(start + timedelta(days=days), issuer.not_valid_after_utc)
    if end <= start:
        raise CaExpired(f"the CA has expired on {rfc3339(issuer.not_valid_after_utc)}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True, key_encipherment=key_encipherment), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    """Kubernetes' order of a subject: O, then CN. Raises ValueError for an empty or overlong name."""
    attributes = [] if organization is None else [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _common_names(name: x509.Name) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _organizations(name: x509.Name) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def _read_cert(cert_pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(cert_pem)
    except (ValueError, x509.InvalidVersion) as exc:
        raise BadCertificate("it is not a certificate in PEM form") from exc


def _signing_key(ca: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(ca.key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the CA's key is not an EC key")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime:
    """Whole seconds, which is all a certificate can hold."""
    return datetime.now(UTC).replace(microsecond=0)
