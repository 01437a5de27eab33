"""What is read of certificates without the library that reads them, against that library."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from componentbase import pki
from componentbase.certificates import BACKDATE, ders, fingerprints, pem_of, validity

CA = pki.create_ca("fairlead", 10)


@pytest.mark.parametrize("days", [0.001, 1, 20_000])  # the last one's end is a GeneralizedTime
def test_validity_is_what_the_library_reads(days: float) -> None:
    pem = pki.create_ca("fairlead", days).cert_pem
    read, found = x509.load_pem_x509_certificate(pem), validity(pem)
    assert found.lapses == read.not_valid_after_utc
    assert found.made == read.not_valid_before_utc + BACKDATE
    assert abs(found.made - datetime.now(UTC)) < timedelta(seconds=30)
    assert found.lifetime_s == pytest.approx(days * 86400, abs=1)


def test_each_certificate_of_a_bundle_is_named_in_its_order() -> None:
    other = pki.create_ca("other", 10)
    bundle = b"words before\n" + CA.cert_pem + other.cert_pem
    assert fingerprints(bundle) == [pki.fingerprint(CA.cert_pem), pki.fingerprint(other.cert_pem)]
    assert pem_of(ders(bundle)[1]) == other.cert_pem
    assert fingerprints(b"nothing") == []


@given(st.integers(0, len(ders(CA.cert_pem)[0]) - 1), st.integers(0, 255))
def test_whatever_is_no_certificate_is_a_value_error(at: int, byte: int) -> None:
    der = bytearray(ders(CA.cert_pem)[0])
    der[at] = byte
    for damaged in (bytes(der), bytes(der[:at])):
        try:
            validity(pem_of(damaged))
        except ValueError:
            continue


def test_no_certificate_is_a_value_error() -> None:
    damaged = b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
    for text in (b"", damaged % b"!", damaged % b"MAA=", damaged % b"MII="):
        with pytest.raises(ValueError, match=r"certificate|PEM"):
            validity(text)
