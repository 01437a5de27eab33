"""
TLS as both ends of the link have it: the versions and ciphers that count, and server contexts that change while in use.

Invariants
    1.3, or from 1.2 on where somebody says so; what is weaker cannot be said
    nobody resumes a session: it would outlive the certificate, or the CA, that it was begun with
    there is no way to get a context here that does not verify what it is shown
"""

import ssl
from enum import Enum


class TlsMin(Enum):
    """The oldest version that is spoken."""

    TLS_1_3 = "1.3"
    TLS_1_2 = "1.2"


READ_BYTES = 32 << 10  # two records
CIPHERS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"  # forward secrecy and AEAD; those of 1.3 have both in any case
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which the ssl module takes and has no name for."""


def read_little_at_a_time() -> None:
    """
    Have asyncio's TLS connections of this process begin with a buffer of READ_BYTES from now on.

    Its own is of 256 KiB, and every page of it is written when it is made: for 51 connections 13 MB, of which a
    record or two is ever used, and holes of that size in the heap when they end. uvloop's connections do not care.
    """
    from asyncio.sslproto import SSLProtocol  # who speaks no asyncio need not have it

    SSLProtocol.max_size = READ_BYTES


def server_context(tls_min: TlsMin = TlsMin.TLS_1_3) -> ssl.SSLContext:
    """Without a certificate yet, and asking for none."""
    context = _hardened(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls_min)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context(tls_min: TlsMin = TlsMin.TLS_1_3) -> ssl.SSLContext:
    """Verifies chain and host name, and trusts nobody yet."""
    return _hardened(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls_min)


def _hardened(context: ssl.SSLContext, tls_min: TlsMin) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls_min is TlsMin.TLS_1_3 else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def admit_lapsed(context: ssl.SSLContext) -> None:
    """
    Leave it to the code behind this server to say when a client's certificate counts; all else is verified as ever.

    A node that was away for long shows that it has the key of a certificate that has lapsed, and policy decides.
    """
    context.verify_flags = ssl.VerifyFlags(int(context.verify_flags) | NO_CHECK_TIME)


class LiveContext:
    """
    A server's context that can be replaced while it listens.

    `context` is for the listener: each handshake is handed on to what replace() was given last, for its certificate and
    for the CAs that it trusts. Whether clients are asked for a certificate, and how, is decided once, by `context`.
    """

    def __init__(self, context: ssl.SSLContext, verify_mode: ssl.VerifyMode = ssl.CERT_NONE) -> None:
        """context: of server_context(); it needs neither certificate nor CA."""
        self.context = context
        self.context.verify_mode = verify_mode
        self._now: ssl.SSLContext | None = None
        # Called in each handshake, also of clients that name no server.
        context.sni_callback = self._choose

    def replace(self, certificate_file: str, trusted_pem: str, key_file: str | None = None) -> None:
        """
        From the next handshake on. Raises OSError, of which ssl.SSLError is one; then all stays as it was.

        trusted_pem: the CAs whose certificates clients may show; "" for none.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Decides nothing any more, but without it getpeercert() says that nothing was verified.
        made.verify_mode = self.context.verify_mode
        made.load_cert_chain(certificate_file, key_file)
        if trusted_pem:
            made.load_verify_locations(cadata=trusted_pem)
        self._now = made

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if self._now is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._now
        return None
