"""Log lines: one record is one line in both formats, and fields come out as they went in."""

import io
import json
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from componentbase import logs

logger = logging.getLogger("tests.logs")


def written(format: logs.LogFormat, message: str, fields: dict[str, object], *, exc_info: bool = False) -> str:
    stream = io.StringIO()
    logs.configure(format, "debug", stream)
    logger.info(message, extra=fields, exc_info=exc_info)
    return stream.getvalue()


def test_text_line_is_time_level_logger_message_and_fields() -> None:
    line = written("text", "session resumed", {"node": "node-7", "seq": 12})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    tests\.logs session resumed node=node-7 seq=12\n", line
    )


def test_value_that_is_not_one_word_stands_in_quotes() -> None:
    line = written("text", "x", {"a": "two words", "b": "", "c": 'say "no"', "d": "k=v", "e": "é\n", "f": None})
    assert line.endswith('x a="two words" b="" c="say \\"no\\"" d="k=v" e="\\u00e9\\n" f=None\n')


def test_json_line_has_the_fields_beside_the_rest() -> None:
    line = json.loads(written("json", "session resumed", {"node": "node-7", "seq": 12, "where": logs}))
    assert line.pop("time").endswith("Z")
    assert line.pop("where").startswith("<module")
    assert line == {
        "level": "info",
        "logger": "tests.logs",
        "message": "session resumed",
        "node": "node-7",
        "seq": 12,
    }


def test_field_does_not_hide_what_every_line_has() -> None:
    line = json.loads(written("json", "x", {"level": "high", "time": 3}))
    assert (line["level"], line["level_"], line["time_"]) == ("info", "high", 3)


def test_traceback_is_told_in_both_formats() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        text = written("text", "x", {}, exc_info=True)
        line = json.loads(written("json", "x", {}, exc_info=True))
    assert text.endswith("KeyError: 'lost'\n")
    assert "Traceback" in text
    assert line["exception"].endswith("KeyError: 'lost'")


def test_configure_replaces_what_was_there_and_obeys_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "warning")
    logs.configure("json", "warning")
    logger.info("quiet")
    logger.warning("once")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [json.loads(line)["message"] for line in captured.err.splitlines()] == ["once"]


def test_libraries_that_log_every_request_are_kept_quiet() -> None:
    stream = io.StringIO()
    logs.configure("text", "debug", stream)
    logging.getLogger("httpx2").info("HTTP Request")
    logging.getLogger("websockets.protocol").debug("< TEXT")
    assert stream.getvalue() == ""


def test_timestamp_is_utc_with_milliseconds() -> None:
    assert logs.timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert logs.timestamp(1_700_000_000.9996) == "2023-11-14T22:13:20.999Z"


values = st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.none() | st.binary()


@given(st.text(st.characters(exclude_categories=["Cs"])), values)
def test_one_record_is_one_line_whatever_stands_in_it(message: str, value: object) -> None:
    for format in logs.FORMATS:
        line = written(format, message.replace("%", "%%"), {"key": value})
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1 or (format == "json" and line.count("\n") == 1), sys.version


def test_fields_of_a_process_are_on_every_line_and_hide_none_of_its_own() -> None:
    stream = io.StringIO()
    logs.configure("text", "info", stream, {"worker": 2})
    logger.info("x", extra={"node": "a"})
    logger.info("y", extra={"worker": 1})
    first, second = stream.getvalue().splitlines()
    assert first.endswith(" x node=a worker=2")
    assert second.endswith(" y worker=1")
