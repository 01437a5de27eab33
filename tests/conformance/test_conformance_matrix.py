"""The matrix is whole: its page, its checks and its clients are those that there are."""

from tests.conformance import matrix
from tests.conformance.checks.every import CHECKS
from tests.conformance.clients.run import MODULES
from tests.harness.site import ROOT

PAGE = ROOT / "docs" / "conformance.md"


def test_the_page_has_the_tables_that_the_tests_are_made_from() -> None:
    assert matrix.tables() in PAGE.read_text(), "put what `python -m tests.conformance.matrix` prints into the page"


def test_every_feature_has_its_check_and_every_check_is_a_feature() -> None:
    assert set(CHECKS) == set(matrix.FEATURES)


def test_what_does_not_apply_names_features_clients_and_places_that_there_are() -> None:
    assert set(matrix.WITHOUT) <= set(matrix.FEATURES)
    assert {client for reasons in matrix.WITHOUT.values() for client in reasons} <= set(matrix.CLIENTS)
    assert {feature for _, feature in matrix.GAPS} <= set(matrix.FEATURES)
    assert {place for place, _ in matrix.GAPS} <= set(matrix.PLACES)
    assert set(MODULES) == set(matrix.CLIENTS)


def test_every_feature_is_asked_of_somebody_at_every_place() -> None:
    for place in (matrix.EMBEDDED, matrix.ONLINE, matrix.OFFLINE):
        assert {cell.feature for cell in matrix.cells(place)} == set(matrix.FEATURES)
