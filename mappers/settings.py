"""
Reading `configData` with complaints that a person can act on: which member of which property, and what it must be.

A driver reads what it needs and calls done(): what nobody asked for is most likely misspelt, and a setting that is
silently ignored costs an afternoon. Pure.
"""

import math
from collections.abc import Collection, Mapping

from apimachinery.objects import JSON
from mappers.words import BadConfig, Device

RUNTIMES_OWN = frozenset({"deadBand"})
"""Members of a property's settings that the runtime reads, whatever the driver."""
SHOWN_CHARS = 80


class Settings:
    """One `configData`, read once."""

    def __init__(self, where: str, values: Mapping[str, JSON], passed_over: Collection[str] = ()) -> None:
        """where: how to call it in a complaint. passed_over: members that done() takes for known."""
        self._where = where
        self._values = values
        self._asked = set(passed_over)

    @classmethod
    def of_device(cls, device: Device) -> "Settings":
        """`protocol.configData`."""
        return cls("protocol.configData", device.settings)

    @classmethod
    def of_property(cls, device: Device, name: str) -> "Settings":
        """`visitors.configData` of one property."""
        return cls(f"property {name}: visitors.configData", device.properties[name].settings, RUNTIMES_OWN)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str | None = None) -> str:
        """A string, not empty unless the default is. Raises BadConfig, also when it is missing and has no default."""
        value = self._get(name, default)
        if not isinstance(value, str) or (not value and default != ""):
            raise self.bad(name, "must be a text")
        return value

    def number(
        self, name: str, default: float | None = None, *, minimum: float = -math.inf, maximum: float = math.inf
    ) -> float:
        """Raises BadConfig when it is no number or out of range."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            bounds = f" from {minimum:g} to {maximum:g}" if math.isfinite(maximum - minimum) else ""
            raise self.bad(name, f"must be a number{bounds}")
        return float(value)

    def whole(self, name: str, default: int | None = None, *, minimum: int, maximum: int) -> int:
        """A whole number; Kubernetes' JSON may have it as 17.0. Raises BadConfig."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise self.bad(name, "must be a whole number")
        if not minimum <= value <= maximum:
            raise self.bad(name, f"must be from {minimum} to {maximum}, not {value:g}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false. Raises BadConfig."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.bad(name, "must be true or false")
        return value

    def choice(self, name: str, words: Collection[str], default: str) -> str:
        """One of these words. Raises BadConfig."""
        value = self._get(name, default)
        if value not in words:
            raise self.bad(name, f"must be {' or '.join(sorted(words))}")
        return str(value)

    def scalars(self, name: str) -> dict[str, str | int | float | bool]:
        """A map of names to texts, numbers or booleans; empty where there is none. Raises BadConfig."""
        value = self._get(name, {})
        if not isinstance(value, Mapping) or not all(is_scalar(each) for each in value.values()):
            raise self.bad(name, "must be a map of names to texts, numbers or booleans")
        return dict(value)

    def texts(self, name: str, most: int) -> list[str]:
        """A text, or a list of at most so many; empty where there is none. Raises BadConfig."""
        value = self._get(name, [])
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise self.bad(name, "must be a text or a list of texts")
        if len(texts) > most:
            raise self.bad(name, f"must be at most {most} texts")
        return list(texts)

    def done(self) -> None:
        """Everything has been asked for. Raises BadConfig for what nobody asked for."""
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked - RUNTIMES_OWN))
            raise self.bad(unknown[0], f"is not known to this driver; it knows {known}")

    def bad(self, name: str, what: str) -> BadConfig:
        """A complaint about one member."""
        return BadConfig(f"{self._where}.{name} {what}")

    def _get(self, name: str, default: JSON) -> JSON:
        self._asked.add(name)
        value = self._values.get(name, default)
        if value is None:
            raise self.bad(name, "is missing")
        return value


def is_scalar(value: JSON) -> bool:
    """Whether it can stand in a text."""
    return isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value))


def shown(text: str) -> str:
    """A foreign text as part of a complaint: short and on one line."""
    printable = "".join(each if each.isprintable() else "?" for each in text[: SHOWN_CHARS + 1])
    return printable if len(text) <= SHOWN_CHARS else printable[: SHOWN_CHARS - 3] + "..."
