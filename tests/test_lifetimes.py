"""When certificates are renewed, for those of a year and those of an hour."""

from datetime import timedelta

import pytest

from componentbase import pki
from componentbase.certificates import validity
from edgehub.lifetimes import CHECK_S, LINKED_S, RETRY_LAPSED_S, RETRY_MOST_S, check_s, linked_s, renew_at, retry_s

YEAR = 365 * 86400.0
HOUR = 3600.0


def test_each_certificate_is_renewed_between_a_half_and_two_thirds_of_its_life_at_its_own_moment() -> None:
    ca = pki.create_ca("fairlead", 3650)
    certificates = [pki.issue_server_cert(ca, ["edge"], 365).cert_pem for _ in range(24)]
    parts = []
    for pem in certificates:
        found = validity(pem)
        assert renew_at(pem, found) == renew_at(pem, found), "it is the same after a restart"
        parts.append((renew_at(pem, found) - found.made) / timedelta(days=365))
    assert all(1 / 2 <= part < 2 / 3 for part in parts)
    assert len(set(parts)) == len(parts)
    assert max(parts) - min(parts) > 0.05, "they are spread"


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_a_hub_is_not_asked_by_all_of_its_nodes_at_once(draw: float) -> None:
    assert CHECK_S / 2 <= check_s(YEAR, draw) <= CHECK_S
    assert linked_s(YEAR, draw) == LINKED_S * draw
    assert check_s(HOUR, draw) <= HOUR / 10
    assert 0.5 <= check_s(1.0, draw) <= 1.0


def test_attempts_become_rarer_and_never_rare_for_who_cannot_connect() -> None:
    waits = [retry_s(YEAR, attempt, 0.999, has_lapsed=False) for attempt in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[0] < 11
    assert waits[-1] == pytest.approx(RETRY_MOST_S, rel=0.01)
    assert max(retry_s(YEAR, attempt, 0.999, has_lapsed=True) for attempt in range(1, 40)) <= RETRY_LAPSED_S
    assert retry_s(10.0, 5, 0.5, has_lapsed=False) <= 1.0
