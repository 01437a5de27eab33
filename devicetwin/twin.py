"""
A device's twin: what it should be, what it says it is, and how far the one follows from the other.

The desired half is written by the cloud (or, until the cloud says otherwise, by somebody at the edge), the
reported half by the device's mapper; neither half writes the other. Every desired value has a number that
only grows within the twin, so that an answer can say which one it is about.

Invariants
    versions >= the version of every desired value ever given; a removed and re-added property gets a new one
    a wish with a problem is never shown to the device
    Twin.from_json(key, twin.to_json()) == twin, but for what comes from the cluster's objects (models, how long
    a reading counts) and the number of the last update

Pure.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import PropertyModel, PropertyReport, same_value
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from devicetwin.declaration import model_for_word
from devicetwin.messages import TwinEntry, Value


class Origin(enum.StrEnum):
    """Who wished."""

    CLOUD = "cloud"
    EDGE = "edge"


class Desired(NamedTuple):
    """What a property should be."""

    value: str
    """ "" is no wish."""
    version: int
    """The number of this wish in the twin; 0: there never was one."""
    since_ms: int = 0
    """When the edge learned of it, in milliseconds since 1970."""
    origin: Origin = Origin.CLOUD
    problem: str = ""
    """Why it is kept from the device; "" when it is not."""
    refusal: str = ""
    """Why the device does not take it, by its mapper's word; "" when it has not said so."""


class Reported(NamedTuple):
    """What a property is, by its mapper's word."""

    value: str
    version: int
    """Grows by one whenever the value or the mapper's word for its type changes."""
    answers: int | None
    """The version of the wish that the mapper says this answers; None when it does not say."""
    observed_at_ms: int
    """When the edge took it in, in milliseconds since 1970."""
    device_at_ms: int | None = None
    """When it was so by the device's or its mapper's own clock; None when the mapper does not say."""
    stale: bool = False
    """Nobody has said it again for so long that it need not be so any more."""


NO_WISH = Desired("", 0)


class Property(NamedTuple):
    """One property of a twin."""

    desired: Desired = NO_WISH
    reported: Reported | None = None
    cloud: str = ""
    """The cloud's latest wish, to tell when it changes its mind while a wish of the edge stands."""
    type: str = ""
    """The mapper's word for the type; "" until it gave one."""
    optional: bool = True
    """Whether a mapper may delete it; false for ever once false, as in KubeEdge."""
    declared: bool = False
    """Whether the Device or its model has it. What only a mapper knows stays at the edge."""
    unlisted: bool = False
    """Whether only the model has it: it is known, but the Device's status has no place for it."""
    model: PropertyModel | None = None
    cycle_ms: int = 0
    """How often readings go up, whether they change or not; 0: at each change and never else."""
    told_at_ms: int = 0
    """When the last report was queued; 0 for never."""
    held: bool = False
    """There is news that waits for the report cycle."""
    stale_after_ms: int = 0
    """How long a reading counts; 0: for ever. From the cluster's objects, as the model is."""

    @property
    def is_told(self) -> bool:
        """Whether what becomes of it goes up to the cloud."""
        return self.declared and not self.unlisted

    @property
    def is_wanted(self) -> bool:
        """Whether there is a wish the device may see."""
        return bool(self.desired.value) and not self.desired.problem

    @property
    def is_open(self) -> bool:
        """
        Whether there is a wish the device has not met.

        A reading that says which wish it answers is believed only for that wish or an older one: the value of a
        late answer may by chance be what is wanted now. One that does not say is judged by its value.
        """
        if not self.is_wanted:
            return False
        reported = self.reported
        if reported is None or (reported.answers is not None and reported.answers < self.desired.version):
            return True
        model = self.model or model_for_word("", self.type)
        return not same_value(model.type, reported.value, self.desired.value)

    @property
    def is_unmet(self) -> bool:
        """Whether there is a wish that is not met, be it that it is kept from the device."""
        return bool(self.desired.value) and (bool(self.desired.problem) or self.is_open)

    def entry(self, *, versioned: bool = False) -> TwinEntry:
        """As messages show it. `versioned` adds the number of the cloud's wish, which only a Delta carries."""
        desired, reported = self.desired, self.reported
        show_version = versioned and self.is_wanted and desired.origin is Origin.CLOUD
        return TwinEntry(
            expected=Value(desired.value, desired.since_ms) if self.is_wanted else None,
            actual=Value(reported.value, reported.observed_at_ms, reported.stale) if reported else None,
            optional=self.optional,
            type=self.type or (self.model.type.value.lower() if self.model else "string"),
            expected_version=desired.version if show_version else None,
            problem=desired.refusal if self.is_wanted and desired.refusal else None,
        )

    def is_due(self, now_ms: int) -> bool:
        """Whether the report cycle is over: a new reading goes up, also where it says the same."""
        # A clock that was set back must not silence a device for as long.
        return bool(self.cycle_ms) and not 0 <= now_ms - self.told_at_ms < self.cycle_ms

    def report(self, generation: int = 0) -> PropertyReport:
        """As it goes up to the cloud. generation: of the Device, which says what the cloud had asked for by then."""
        desired, reported = self.desired, self.reported
        is_desired = bool(desired.value)
        return PropertyReport(
            value=reported.value if reported else None,
            value_type=self.type if reported else "",
            observed_at_ms=reported.observed_at_ms if reported else desired.since_ms,
            desired=desired.value if is_desired else None,
            problem=desired.problem or desired.refusal,
            device_at_ms=reported.device_at_ms if reported else None,
            desired_at_ms=desired.since_ms if is_desired else None,
            desired_version=desired.version if is_desired else 0,
            answers=reported.answers if reported else None,
            generation=generation if is_desired else 0,
            origin=desired.origin.value if is_desired and desired.origin is Origin.EDGE else "",
            stale=reported.stale if reported else False,
        )

    def release_at_ms(self) -> int | None:
        """When news that waits for the report cycle goes up, in milliseconds since 1970; None where none waits."""
        return self.told_at_ms + self.cycle_ms if self.held else None

    def stale_at_ms(self, since_ms: int) -> int | None:
        """
        When the reading becomes stale if nobody says it again, in milliseconds since 1970; None for never.

        since_ms: when this process began to listen. What was said before counts from then: nobody could be heard.
        """
        reported = self.reported
        if reported is None or reported.stale or not self.stale_after_ms:
            return None
        return max(reported.observed_at_ms, since_ms) + self.stale_after_ms


class Twin(NamedTuple):
    """One device's twin."""

    device: ObjectKey
    uid: str
    """The incarnation of the Device it belongs to."""
    properties: Mapping[str, Property]
    state: str = ""
    """As the mapper spelled it; "" until one has said anything."""
    last_online: str = ""
    """RFC 3339, UTC: when it last said online or ok; "" for never."""
    versions: int = 0
    """The latest version given to a wish."""
    generation: int = 0
    """The Device's metadata.generation that it follows; 0 where the cluster says none."""
    problem: str = ""
    """What a person should know of the device as a whole, as a sentence; "" for nothing."""
    sequence: int | None = None
    """The number of the last update that was numbered; not durable: after a restart redeliveries start anywhere."""

    def delta(self) -> dict[str, str]:
        """The wishes the device has not met, by property."""
        # Most properties have no wish: that is asked first, for this runs over all of them at each update.
        return {
            name: each.desired.value for name, each in self.properties.items() if each.desired.value and each.is_open
        }

    def head_json(self) -> dict[str, JSON]:
        """What is durable of it but its properties."""
        return {
            "uid": self.uid,
            "state": self.state,
            "lastOnline": self.last_online,
            "versions": self.versions,
            "generation": self.generation,
            "problem": self.problem,
        }

    def to_json(self) -> dict[str, JSON]:
        """All that is durable; what the Device and its model say is left out."""
        return {
            **self.head_json(),
            "properties": {name: property_json(each) for name, each in self.properties.items()},
        }

    def is_kept_as(self, other: "Twin") -> bool:
        """Whether to_json() of both is the same. Told in a tenth of the time."""
        mine, others = self.properties, other.properties
        return (
            self.head_json() == other.head_json()
            and mine.keys() == others.keys()
            and all(each is others[name] or _durable(each) == _durable(others[name]) for name, each in mine.items())
        )

    @classmethod
    def from_json(cls, device: ObjectKey, value: JSON) -> "Twin":
        """
        From to_json's or head_json's.

        Raises ValueError for a document that neither wrote: somebody else did, or a newer program.
        """
        try:
            return cls(
                device,
                uid=str(value["uid"]),
                properties={name: property_from(each) for name, each in value.get("properties", {}).items()},
                state=str(value["state"]),
                last_online=str(value["lastOnline"]),
                versions=int(value["versions"]),
                generation=int(value.get("generation") or 0),
                problem=str(value.get("problem") or ""),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"the stored twin of {device} is not readable: {error!r}") from error


def _durable(each: Property) -> tuple[object, ...]:
    """What property_json() tells."""
    return (
        *(each.desired, each.reported, each.cloud, each.type, each.optional),
        *(each.declared, each.unlisted, each.told_at_ms, each.held),
    )


def property_json(each: Property) -> dict[str, JSON]:
    """The durable document; what is as it is in most properties is left out."""
    desired, reported = each.desired, each.reported
    out: dict[str, JSON] = {}
    if each.cloud:
        out["cloud"] = each.cloud
    if each.type:
        out["type"] = each.type
    if not each.optional:
        out["optional"] = False
    if each.declared:
        out["declared"] = True
    if each.unlisted:
        out["unlisted"] = True
    if desired != NO_WISH:
        out["desired"] = [desired.value, desired.version, desired.since_ms, desired.origin.value, desired.problem]
        if desired.refusal:
            out["desired"].append(desired.refusal)
    if reported is not None:
        out["reported"] = list(reported)
    if each.told_at_ms:
        out["toldAt"] = each.told_at_ms
    if each.held:
        out["held"] = True
    return out


def property_from(value: JSON) -> Property:
    """Raises one of KeyError, TypeError, AttributeError, ValueError for what property_json did not write."""
    desired, reported = NO_WISH, None
    if "desired" in value:
        wish, version, since_ms, origin, problem, *refusal = value["desired"]
        desired = Desired(str(wish), int(version), int(since_ms), Origin(origin), str(problem), *map(str, refusal))
    if "reported" in value:
        # Earlier releases wrote the first four.
        reading, version, answers, observed_at_ms, *rest = value["reported"]
        device_at_ms, stale = rest if rest else (None, False)
        reported = Reported(
            value=str(reading),
            version=int(version),
            answers=None if answers is None else int(answers),
            observed_at_ms=int(observed_at_ms),
            device_at_ms=None if device_at_ms is None else int(device_at_ms),
            stale=bool(stale),
        )
    return Property(
        desired=desired,
        reported=reported,
        cloud=str(value.get("cloud", "")),
        type=str(value.get("type", "")),
        optional=bool(value.get("optional", True)),
        declared=bool(value.get("declared", False)),
        unlisted=bool(value.get("unlisted", False)),
        told_at_ms=int(value.get("toldAt", 0)),
        held=bool(value.get("held", False)),
    )
