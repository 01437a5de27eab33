"""
What a device says in JSON or plain text, as property values; and values as what the device wants to hear.

Shared by the drivers whose devices speak texts (HTTP, MQTT). Where in a document a value stands is a JSON pointer
(RFC 6901, "/sensors/0/t") or the same with dots ("sensors.0.t"); what is sent is a template.

Templates
    {value}     the desired value as plain text
    {json}      the desired value as JSON: with quotes where it is a text
    {property}, {device}, {namespace}, and {NAME} for every scalar member of the device's protocol.configData
A brace before anything but such a name stands for itself, so JSON can be written down as it is.

Invariants
    a document that cannot be read, or a value that does not fit, is a ValueError with a sentence, never a crash
    what came from the device is in a sentence only shortened, and without characters that a terminal obeys

Pure.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, NoReturn, assert_never

from apimachinery.devices import PropertyType
from apimachinery.objects import JSON
from mappers.settings import Settings, is_scalar, shown
from mappers.words import Device, Reading, Value

TRUE_WORDS = frozenset({"true", "on", "1", "yes"})
FALSE_WORDS = frozenset({"false", "off", "0", "no"})
"""What counts as a boolean without `values`, in any case: the words of Tasmota, Zigbee2MQTT and most others."""
SECRETS = frozenset({"password", "token"})
"""Members of protocol.configData that no template may name, for its result can appear in logs."""
SECONDS_BELOW = 1e11
"""A moment below this is in seconds since 1970 (until the year 5138), one above it in milliseconds (from 1973 on)."""

_TOKEN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FREE = frozenset({PropertyType.STRING, PropertyType.STREAM, PropertyType.BYTES})
"""Types that take any word; the others judge what is not in `values`, for some devices say true and want "on"."""
_VALUE_NAMES = frozenset({"value", "json"})
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

Scalar = str | int | float | bool
Names = Mapping[str, Scalar]
"""What a template may name."""


def document(payload: bytes) -> JSON:
    """JSON as RFC 8259 has it: UTF-8, no NaN. Raises ValueError with a sentence."""
    try:
        return json.loads(payload.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as exc:
        what = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
        raise ValueError(f"it is not JSON ({what}): {shown(payload[:200].decode(errors='replace'))}") from None


class Absent(ValueError):
    """The document has nothing in this place."""


class Pointer(NamedTuple):
    """Where a value stands in a document."""

    text: str
    """As it was written."""
    steps: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Pointer":
        """A JSON pointer where it begins with "/", else names with dots between; "" is the whole. ValueError."""
        if not text:
            return cls(text, ())
        if not text.startswith("/"):
            steps = text.split(".")
            if "" in steps:
                raise ValueError(f'"{text}" has an empty name between its dots; a JSON pointer begins with "/"')
            return cls(text, tuple(steps))
        if re.search(r"~(?![01])", text):
            raise ValueError(f'"{text}" has a "~" that is neither ~0 (for "~") nor ~1 (for "/")')
        return cls(text, tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")))

    def find(self, value: JSON) -> JSON:
        """What stands there. Raises Absent."""
        for count, step in enumerate(self.steps):
            match value:
                case Mapping() if step in value:
                    value = value[step]
                case list() if _INDEX.fullmatch(step) and int(step) < len(value):
                    value = value[int(step)]
                case _:
                    place = "/".join(self.steps[:count])
                    raise Absent(f'there is no "{shown(step)}"' + (f' in "{shown(place)}"' if place else ""))
        return value


class Template:
    """A text with places for the value; the places for settings are filled in at once."""

    def __init__(self, text: str, names: Names, *, with_value: bool = False) -> None:
        """with_value: whether {value} and {json} may stand in it. Raises ValueError for a name that is not known."""
        # Every second piece is a name. What a setting brings in is not looked at again: it cannot name another one.
        pieces = _TOKEN.split(text)
        own = _VALUE_NAMES if with_value else frozenset[str]()
        for at in range(1, len(pieces), 2):
            if pieces[at] in own:
                continue
            if pieces[at] not in names:
                known = ", ".join(sorted({*names, *own}))
                raise ValueError(f"{{{pieces[at]}}} is not known here; known are {known}")
            pieces[at - 1] += plain(names[pieces[at]])
            pieces[at] = ""
        self._pieces = tuple(pieces)

    @property
    def has_value(self) -> bool:
        """Whether the value stands in it."""
        return any(self._pieces[1::2])

    def text(self, value: Scalar = "", escape: Callable[[str], str] = str) -> str:
        """The text with this value. escape: applied to the value, not to the text around it."""
        filled = {"": "", "value": escape(plain(value)), "json": escape(json.dumps(value, ensure_ascii=False))}
        return "".join(filled[piece] if at % 2 else piece for at, piece in enumerate(self._pieces))


def template_names(device: Device, name: str | None = None) -> Names:
    """What a template of this property, or of the device itself, may name besides the value."""
    namespace, _, device_name = device.id.partition("/")
    settings = {key: value for key, value in device.settings.items() if key not in SECRETS and is_scalar(value)}
    own = {} if name is None else {"property": name}
    return {**settings, "namespace": namespace, "device": device_name, **own}


def template(settings: Settings, name: str, text: str, names: Names, *, with_value: bool = False) -> Template:
    """The template that is in the setting of this name. Raises BadConfig."""
    try:
        return Template(text, names, with_value=with_value)
    except ValueError as exc:
        raise settings.bad(name, str(exc)) from None


class Codec:
    """One property's values: from what the device says, to what it hears."""

    def __init__(self, kind: PropertyType, settings: Settings) -> None:
        """
        Reads `pointer`, `timePointer`, `format` and `values`. Raises BadConfig.

        `values` names, for each value of the twin, the device's own word for it: {"true": "ON", "false": "OFF"}.
        """
        self._kind = kind
        self._is_text = settings.choice("format", ("json", "text"), "json") == "text"
        self._pointer = _pointer(settings, "pointer")
        self._time_pointer = _pointer(settings, "timePointer") if "timePointer" in settings else None
        if self._is_text and (self._pointer.steps or self._time_pointer):
            raise settings.bad("pointer", "points into JSON, but the format is text")
        self._words = settings.scalars("values")
        self._meanings = {plain(word): text for text, word in self._words.items()}
        if len(self._meanings) < len(self._words):
            raise settings.bad("values", "has the same word for two values")

    @property
    def is_json(self) -> bool:
        """Whether what the device says is to be parsed by document()."""
        return not self._is_text

    def reading(self, said: JSON) -> Reading | None:
        """
        The property's value in a parsed document, or in a text where the format is text.

        None where the device has null there. Raises Absent, or ValueError, with a sentence.
        """
        found = self._pointer.find(said)
        if found is None:
            return None
        word = plain(found) if is_scalar(found) else None
        if word in self._meanings:
            found = self._meanings[word]
        elif self._words and self._kind in _FREE:
            raise ValueError(f"{_shown(found)} is none of the device's words in `values`")
        return Reading(to_value(self._kind, found), self._moment(said))

    def to_device(self, value: Value) -> Scalar:
        """The value as the device calls it. Raises ValueError where it has no word for it."""
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        if not self._words:
            return text
        word = self._words.get(plain(text))
        if word is None:
            raise ValueError(f"`values` has no word for {shown(plain(text))}")
        return word

    def _moment(self, said: JSON) -> int | None:
        if self._time_pointer is None:
            return None
        try:
            return moment_ms(self._time_pointer.find(said))
        except ValueError:
            return None  # a device without a clock yet says nothing of the value


def to_value(kind: PropertyType, found: JSON) -> Value:
    """What a device said as a value of the model's type. Raises ValueError with a sentence."""
    match kind:
        case PropertyType.BOOLEAN:
            word = plain(found).lower() if is_scalar(found) else ""
            if word in TRUE_WORDS or word in FALSE_WORDS:
                return word in TRUE_WORDS
            raise ValueError(f"{_shown(found)} is neither on nor off; name the device's words in `values`")
        case PropertyType.INT | PropertyType.FLOAT | PropertyType.DOUBLE:
            number = _number(found)
            if kind is not PropertyType.INT:
                return float(number)
            if number != int(number):
                raise ValueError(f"{_shown(found)} is not a whole number; make the property a FLOAT")
            return int(number)
        case PropertyType.BYTES:
            try:
                return base64.b64decode(found, validate=True)
            except (TypeError, ValueError):
                raise ValueError(f"{_shown(found)} is not base64") from None
        case PropertyType.STRING | PropertyType.STREAM:
            return plain(found) if is_scalar(found) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        case _:
            assert_never(kind)


def moment_ms(found: JSON) -> int:
    """A moment in milliseconds since 1970, from a number or from RFC 3339 with its zone. Raises ValueError."""
    if isinstance(found, str) and "T" in found:
        moment = datetime.fromisoformat(found)
        if moment.tzinfo is None:
            raise ValueError(f"{shown(found)} does not say its time zone")
        return round(moment.timestamp() * 1000)
    number = _number(found)
    if not 0 < number < 1e15:
        raise ValueError(f"{_shown(found)} is no moment since 1970")
    return round(number * 1000 if number < SECONDS_BELOW else number)


def plain(value: Scalar) -> str:
    """A scalar as a text without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _pointer(settings: Settings, name: str) -> Pointer:
    try:
        return Pointer.parse(settings.text(name, ""))
    except ValueError as exc:
        raise settings.bad(name, str(exc)) from None


def _number(found: JSON) -> int | float:
    try:
        if isinstance(found, str):
            found = int(found) if _WHOLE.fullmatch(found) else float(found)
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            number: int | float = found
            return number
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{_shown(found)} is not a number")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _shown(found: JSON) -> str:
    return shown(json.dumps(found, ensure_ascii=False))
