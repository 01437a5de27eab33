"""
Log lines on stderr, for a person (text) or a collector (json), from the standard logging module and nothing else.

A message is a constant and the facts are fields: logger.info("session resumed", extra={"node": node, "seq": seq}).
So a line can be searched for by its message and read by a machine without a pattern per message.

Invariants
    one record is one line, whatever stands in its fields; only a traceback of the text format takes more
    a field never hides the time, the level, the logger or the message
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal, TextIO, get_args

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; whatever else it has came with extra=."""
_RESERVED = frozenset({"time", "level", "logger", "message", "exception"})
_CHATTY = ("asyncio", "hpack", "httpcore2", "httpx2", "quic", "websockets")
"""Libraries that tell every request or frame at INFO or DEBUG, the bodies among them. They speak from WARNING on."""


def configure(
    format: LogFormat = "text",
    level: LogLevel = "info",
    stream: TextIO | None = None,
    fields: Mapping[str, object] | None = None,
) -> None:
    """
    Send all log records to stderr (or stream), replacing what was configured before.

    fields: what every line has besides its own, as the number of a worker.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    if fields:
        handler.addFilter(_Fields(fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields given with extra=, in the order given; a name that means something else here gets an underscore."""
    return {
        f"{name}_" if name in _RESERVED else name: value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


def timestamp(created: float) -> str:
    """Seconds since 1970 as UTC with milliseconds: 2026-11-23T09:30:00.123Z (RFC 3339)."""
    milliseconds = int(created * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(milliseconds // 1000))}.{milliseconds % 1000:03d}Z"


class _Fields(logging.Filter):
    """Refuses nothing: adds fields that a record has not."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._fields.items():
            vars(record).setdefault(name, value)
        return True


class TextFormatter(logging.Formatter):
    """TIME LEVEL logger message key=value ..., a value in quotes where it would not read as one word."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{timestamp(record.created)} {record.levelname:<7} {record.name} {one_line(record.getMessage())}"
        line = " ".join([head, *(f"{name}={_word(value)}" for name, value in fields_of(record).items())])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object per line: time, level, logger, message, the fields, and a traceback as "exception"."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= fields_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _word(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text != "" and not set(text) & set(' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def one_line(text: str) -> str:
    """Text of a stranger as a terminal may show it: nothing in it ends the line or steers the terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
