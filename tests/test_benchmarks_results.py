"""The file of results and the page that shows them."""

from pathlib import Path

from benchmarks import results
from benchmarks.figures import Curve, Figure

PAGE = """
# Page
<!-- bench promises -->
old
<!-- end -->
Text stays.
<!-- bench fanout -->
old fan-out
<!-- end -->
<!-- bench storm -->
not measured this time
<!-- end -->
"""


def fanout() -> results.Family:
    family = results.Family(3)
    family.add([Figure("frames", "1/s", [5.0], 4.0, at_least=True, is_promise=True), Figure("other", "s", [1.0])])
    family.add([Curve("throughput", "hub", [(10, 5.0), (100, 6.0)])])
    return family


def test_a_family_reads_back_as_it_was_written(tmp_path: Path) -> None:
    families = {"fanout": fanout()}
    results.write(tmp_path / "latest.json", families)
    assert results.read(tmp_path / "latest.json") == families


def test_a_file_that_is_missing_or_of_another_make_holds_no_families(tmp_path: Path) -> None:
    assert results.read(tmp_path / "none.json") == {}
    (tmp_path / "old.json").write_text('{"families": {"fanout": [{"name": "x"}]}}')
    assert results.read(tmp_path / "old.json") == {}


def test_the_page_gets_the_figures_between_its_marks_and_keeps_the_rest() -> None:
    page = results.fill(PAGE, {"fanout": fanout()})
    promised, own, other = page.split("<!-- end -->")[:3]
    assert "frames" in promised
    assert "other" not in promised
    assert "other" in own
    assert "old" not in promised + own
    assert "Text stays." in page
    assert "not measured this time" in other
    assert results.fill(page, {"fanout": fanout()}) == page


def test_plots_are_written_for_what_there_is(tmp_path: Path) -> None:
    written = results.write_plots(tmp_path / "new", {"fanout": fanout()})
    assert [path.name for path in written] == ["throughput.svg"]
    assert written[0].read_text().startswith("<svg")


def test_only_what_is_promised_is_in_the_first_table() -> None:
    assert [figure.name for figure in results.promises({"fanout": fanout()})] == ["frames"]
