"""
Which mapper says that it serves which device.

Nothing on MQTT keeps two mappers from serving one device, and which of them is right nobody here can know: a
publication does not say who sent it. So both are served, the last word counts, and a person is told.

Invariants
    `of` and `served_by` say the same, seen from either side

Pure.
"""

from collections.abc import Collection, Mapping

from devicetwin.topics import DeviceId

MAX_MAPPERS = 1024


class MapperClaims:
    """The last list of each living mapper."""

    def __init__(self, kept: Mapping[str, tuple[DeviceId, ...]]) -> None:
        self._lists: dict[str, tuple[DeviceId, ...]] = {}
        self._mappers: dict[DeviceId, tuple[str, ...]] = {}
        self._contested: dict[DeviceId, None] = {}
        for mapper, devices in kept.items():
            self.take(mapper, devices)

    @property
    def is_full(self) -> bool:
        return len(self._lists) >= MAX_MAPPERS

    @property
    def contested(self) -> Collection[DeviceId]:
        """The devices that more than one mapper claims."""
        return self._contested.keys()

    def served_by(self, mapper: str) -> tuple[DeviceId, ...] | None:
        """None for a mapper that said nothing yet, or is gone."""
        return self._lists.get(mapper)

    def of(self, device: DeviceId) -> tuple[str, ...]:
        """The mappers that claim the device."""
        return self._mappers.get(device, ())

    def take(self, mapper: str, devices: tuple[DeviceId, ...] | None) -> list[DeviceId]:
        """
        The mapper's new list; None when it is gone.

        Returns the devices that more than one mapper claims now or did before.
        """
        changed = dict.fromkeys([*self._lists.get(mapper, ()), *(devices or ())])
        now = frozenset(devices or ())
        concerned: list[DeviceId] = []
        for device in changed:
            before = self._mappers.get(device, ())
            after = tuple(each for each in before if each != mapper) + ((mapper,) if device in now else ())
            if after:
                self._mappers[device] = after
            else:
                del self._mappers[device]
            if len(after) > 1:
                self._contested[device] = None
            else:
                self._contested.pop(device, None)
            if max(len(before), len(after)) > 1:
                concerned.append(device)
        if devices is None:
            self._lists.pop(mapper, None)
        else:
            self._lists[mapper] = devices
        return concerned
