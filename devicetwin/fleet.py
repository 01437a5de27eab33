"""
All devices of this node: their objects, their twins, and what a piece of news means for each.

The fleet finds the twins that news concerns, steps them and gathers the outcome; it performs nothing. Model
and Device arrive in any order and change on their own, so the fleet remembers which devices use which model.

Invariants
    a twin is here exactly when its Device is; between start and the first snapshot also those kept from before
    an outcome's documents are those of the twins as they are when `seal` comes to them, each once

Pure: ids and the time are arguments. The shell is devicetwin/service.py.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import KubeEvent
from apimachinery.objects import JSON, Object, canonical
from apimachinery.resources import DEVICE_MODELS, DEVICES
from componentbase.jsonbytes import compact
from devicetwin.claims import MapperClaims
from devicetwin.declaration import Model, configuration, configured, declaration, model_of
from devicetwin.documents import Kept, mapper_document, mapper_name, twin_documents, twin_name
from devicetwin.messages import (
    MAX_PAYLOAD_BYTES,
    OFFLINE,
    Channel,
    CurrentTwin,
    DeviceId,
    ErrorReply,
    Member,
    MembershipList,
    MembershipUpdate,
    NodeChannel,
    TwinEntry,
    Value,
)
from devicetwin.reconcile import shown, step
from devicetwin.recorder import EventRecorder
from devicetwin.silence import SilenceDeadlines
from devicetwin.steps import (
    Asked,
    Claimed,
    Connected,
    CountMissed,
    Declared,
    Elapsed,
    Event,
    Forget,
    PublishResult,
    QueueReport,
    Record,
    Refuse,
    Removed,
    Save,
    StateReported,
    Tell,
    Updated,
)
from devicetwin.twin import Property, Twin
from devicetwin.wire import (
    ConfigSeen,
    Ignored,
    MapperSpoke,
    MembershipAsked,
    Publication,
    Refused,
    id_of,
    key_of,
    read,
    written,
)
from link.frames import ReportEntry

logger = logging.getLogger(__name__)

MEMBERS_PER_MESSAGE = 100
MAX_LEFT = 256  # devices that left since the broker was last there; mappers that miss older ones ask for the list
STALE_AFTER_MS = 180_000  # three reports of a mapper that says unchanged values once a minute
STALE_PER_TURN = 64  # devices looked at between two turns of the event loop; 20 properties each take 10 us
CURRENT_PER_S = 100  # current twins published per second: each is written anew, some 0.1 ms for 20 properties
CURRENT_PER_TURN = 10


class Moment(NamedTuple):
    """What the outside gives to every decision."""

    now_ms: int
    new_id: Callable[[], str]


class Outcome:
    """What a batch of news asks for: to be made durable, then to be said."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes | None] = {}
        self.publications: list[Publication] = []
        self.requests: list[tuple[DeviceId, str]] = []
        """The updates in it by device and event id: they want to know if the outcome cannot be made durable."""
        self.events: list[KubeEvent] = []
        self.samples: dict[tuple[ObjectKey, str], tuple[int, str | None]] = {}
        """By property when it was taken in, in milliseconds since 1970, and the reading; None: not known any more."""
        self.gone: list[ObjectKey] = []
        """The devices that left; what `samples` has of one is of its successor."""
        self._reports: dict[tuple[ObjectKey, str], ReportEntry] = {}
        self.unsealed: set[DeviceId] = set()

    @property
    def reports(self) -> list[ReportEntry]:
        return list(self._reports.values())

    def report(self, key: ObjectKey, field: str, value: Mapping[str, JSON]) -> None:
        self._reports[key, field] = ReportEntry(key, field, canonical(value))

    @property
    def is_durable(self) -> bool:
        """Whether there is nothing to be committed."""
        return not self.documents and not self._reports and not self.events

    def not_stored(self, now_ms: int, reason: str) -> list[Publication]:
        """What to tell those who wait, while the outcome cannot be made durable."""
        return [
            Publication(
                Channel.TWIN_UPDATE_RESULT.topic(device),
                ErrorReply(event_id, now_ms, 500, f"not stored yet, still trying: {reason}").encode(),
            )
            for device, event_id in self.requests
        ]


class _Configured(NamedTuple):
    """What a device's mapper was told last, and of what that was made."""

    model: Model | None
    said: int
    """The hash of what the Device says of it."""
    payload: int
    """The hash of what was published."""


class Fleet:
    """The devices of one node."""

    def __init__(self, node: str, kept: Kept, *, now_ms: int = 0, stale_after_ms: int = STALE_AFTER_MS) -> None:
        """now_ms: when it begins to listen. stale_after_ms: see devicetwin.declaration."""
        self.node = node
        self.ignored = 0
        """Messages on our topics that nobody waits for an answer to."""
        self.missed = 0
        """Updates that their mappers numbered and that never came."""
        self.recorder = EventRecorder()
        self.claims = MapperClaims(kept.mappers)
        self._twins = kept.twins
        self._sealed = dict(kept.split)
        """The twins as they were last written down."""
        self._stale_after_ms = stale_after_ms
        self._since_ms = now_ms
        self._silence = SilenceDeadlines()
        self._outdated: dict[DeviceId, None] = {}
        """The devices whose current twin is to be published, the one that waits longest first."""
        self._current_at_ms = now_ms
        self._devices: dict[DeviceId, Object] = {}
        self._models: dict[tuple[str, str], Model] = {}
        self._users: dict[tuple[str, str], set[DeviceId]] = {}
        self._model_of: dict[DeviceId, tuple[str, str]] = {}
        self._configured: dict[DeviceId, _Configured] = {}
        self._left: dict[DeviceId, None] = {}

    @property
    def twins(self) -> Mapping[DeviceId, Twin]:
        return self._twins

    # --- the cluster's objects

    def take_snapshot(self, objects: Iterable[Object], moment: Moment, outcome: Outcome) -> list[DeviceId]:
        """Take this for all there is. Returns the devices to `declare`."""
        devices = {id_of(each.key): each for each in objects if each.key.resource.collection == DEVICES.collection}
        self._models = {
            (each.key.namespace, each.key.name): Model.read(each.parse())
            for each in objects
            if each.key.resource.collection == DEVICE_MODELS.collection
        }
        for device in [*self._twins, *self._devices]:
            if device not in devices:
                self._remove(device, moment, outcome)
        for device, each in devices.items():
            self._place(device, each)
        return list(devices)

    def take_changes(self, changes: Iterable[Change], moment: Moment, outcome: Outcome) -> list[DeviceId]:
        """Returns the devices to `declare`, each once."""
        concerned: dict[DeviceId, None] = {}
        for change in changes:
            key, is_gone = change.object.key, change.type is EventType.DELETED
            if key.resource.collection == DEVICES.collection:
                device = id_of(key)
                if is_gone:
                    self._remove(device, moment, outcome)
                    concerned.pop(device, None)
                else:
                    self._place(device, change.object)
                    concerned[device] = None
            elif key.resource.collection == DEVICE_MODELS.collection:
                name = (key.namespace, key.name)
                if is_gone:
                    self._models.pop(name, None)
                else:
                    self._models[name] = Model.read(change.object.parse())
                concerned |= dict.fromkeys(sorted(self._users.get(name, ())))
        return list(concerned)

    def declare(self, devices: Sequence[DeviceId], moment: Moment, outcome: Outcome) -> None:
        """Bring the twins of these devices in step with their objects. Some 0.2 ms each: cut long lists."""
        for device in devices:
            if (each := self._devices.get(device)) is None:
                continue
            model, body = self._models.get(self._model_of[device]), each.parse()
            is_new = device not in self._twins
            self._step(
                Declared(each.key, declaration(body, model, stale_after_ms=self._stale_after_ms)),
                moment,
                outcome,
            )
            if is_new:
                self._left.pop(device, None)
                self._say_members(moment, outcome, added=[self._member(device)])
            self._configure(device, body, model, outcome)

    def _configure(self, device: DeviceId, body: Mapping[str, JSON], model: Model | None, outcome: Outcome) -> None:
        """Tell the mapper, where it is something else than last time. A new wish, which changes most, is not."""
        said, before = hash(compact(configured(body))), self._configured.get(device)
        if before is not None and before.model is model and before.said == said:
            return
        payload = configuration(device, self.node, body, model).encode()
        self._configured[device] = _Configured(model, said, hash(payload))
        if before is None or before.payload != hash(payload):
            outcome.publications.append(Publication(Channel.CONFIG.topic(device), payload, retain=True))

    def _place(self, device: DeviceId, each: Object) -> None:
        self._displace(device)
        model = (device.namespace, model_of(each.parse()))
        self._devices[device] = each
        self._model_of[device] = model
        self._users.setdefault(model, set()).add(device)

    def _displace(self, device: DeviceId) -> None:
        self._devices.pop(device, None)
        if (model := self._model_of.pop(device, None)) is not None:
            users = self._users[model]
            users.discard(device)
            if not users:
                del self._users[model]

    def _remove(self, device: DeviceId, moment: Moment, outcome: Outcome) -> None:
        self._displace(device)
        self._configured.pop(device, None)
        if device not in self._twins:
            return
        self._step(Removed(key_of(device)), moment, outcome)
        self._left[device] = None
        while len(self._left) > MAX_LEFT:
            del self._left[next(iter(self._left))]
        self._say_members(moment, outcome, removed=[Member(device)])
        self._clear(device, outcome)

    def _clear(self, device: DeviceId, outcome: Outcome) -> None:
        """Have the broker forget what it keeps of a device."""
        self._outdated.pop(device, None)
        for channel in (Channel.CONFIG, Channel.TWIN):
            outcome.publications.append(Publication(channel.topic(device), b"", retain=True))

    # --- the broker

    def take_online(self, moment: Moment, outcome: Outcome) -> list[DeviceId]:
        """
        The broker is there (again), and may have forgotten all or missed much: say everything that stands.

        Returns the devices to `declare`, for their configurations.
        """
        members = [self._member(device) for device in self._devices]
        for start in range(0, len(members), MEMBERS_PER_MESSAGE):
            self._say_members(moment, outcome, added=members[start : start + MEMBERS_PER_MESSAGE])
        if self._left:
            self._say_members(moment, outcome, removed=[Member(device) for device in self._left])
            self._left.clear()
        self._configured.clear()
        self._outdated |= dict.fromkeys(self._twins)
        for twin in list(self._twins.values()):
            self._step(Connected(twin.device), moment, outcome)
        return list(self._devices)

    def take_message(
        self, topic: str, payload: bytes, moment: Moment, outcome: Outcome, *, retained: bool = False
    ) -> None:
        """A message on one of our topics, whatever is in it."""
        match said := read(topic, payload, retained=retained):
            case Updated() | StateReported() | Asked():
                if isinstance(said, Updated):
                    outcome.requests.append((id_of(said.device), said.event_id))
                self._step(said, moment, outcome)
            case MembershipAsked(event_id):
                members = tuple(self._member(device) for device in self._devices)
                self._say(NodeChannel.MEMBERSHIP_GET_RESULT, MembershipList(event_id, moment.now_ms, members), outcome)
            case MapperSpoke():
                self._take_mapper(said, moment, outcome)
            case ConfigSeen(device, node):
                if node == self.node and device not in self._devices:
                    self._clear(device, outcome)
            case Refused(device, refuse):
                logger.debug("refused a message", extra={"topic": topic, "code": refuse.code, "reason": refuse.reason})
                outcome.publications.append(written(device, refuse, moment.now_ms, moment.new_id))
            case Ignored(reason, is_odd):
                self.ignored += is_odd
                logger.debug("ignored a message", extra={"topic": topic, "reason": reason})

    def take_wishes(
        self, key: ObjectKey, wishes: Mapping[str, tuple[str, int]], moment: Moment, outcome: Outcome
    ) -> Refuse | None:
        """
        Wishes set at the edge by other means than MQTT: by property a value and the version it is based on.

        Nobody on MQTT waits for the answer: it is returned, None where they were taken.
        """
        twin = {name: TwinEntry(Value(value), expected_version=base) for name, (value, base) in wishes.items()}
        return self._step(Updated(key, "", twin), moment, outcome, asked_here=True)

    def _take_mapper(self, said: MapperSpoke, moment: Moment, outcome: Outcome) -> None:
        known = self.claims.served_by(said.mapper)
        served = known if said.devices is None else said.devices
        if said.state.lower() == OFFLINE:
            # Forgotten, so that the will, which the broker retains, turns off nobody's devices a second time.
            self._claim(said.mapper, None, moment, outcome)
            for device in served or ():
                # One that another mapper serves as well is what that one says it is.
                if device in self._twins and not self.claims.of(device):
                    self._step(StateReported(key_of(device), "", OFFLINE, said.mapper), moment, outcome)
            if known is not None:
                outcome.documents[mapper_name(said.mapper)] = None
        elif served is not None and served != known:
            if known is None and self.claims.is_full:
                logger.warning("too many mappers, this one's end will go unnoticed", extra={"mapper": said.mapper})
                return
            self._claim(said.mapper, served, moment, outcome)
            outcome.documents[mapper_name(said.mapper)] = mapper_document(served)

    def _claim(self, mapper: str, devices: tuple[DeviceId, ...] | None, moment: Moment, outcome: Outcome) -> None:
        contested = 0
        for device in self.claims.take(mapper, devices):
            claimants = self.claims.of(device)
            contested += len(claimants) > 1
            self._step(Claimed(key_of(device), claimants), moment, outcome)
        if contested:
            logger.warning(
                "a mapper claims devices that another one serves, the last word counts",
                extra={"mapper": mapper, "devices": contested},
            )

    # --- time

    def next_deadline_ms(self) -> int | None:
        """When to call `take_time` next; None while nothing waits for its time."""
        due = [self._silence.next_ms(), self.recorder.next_deadline_ms()]
        if self._outdated:
            due.append(self._current_at_ms)
        return min((each for each in due if each is not None), default=None)

    def take_time(self, moment: Moment, outcome: Outcome) -> None:
        """Whatever time it is."""
        for device in self._silence.due(moment.now_ms, STALE_PER_TURN):
            self._step(Elapsed(key_of(device), self._since_ms), moment, outcome)
        for told in self.recorder.due(moment.now_ms, moment.new_id):
            facts = {"device": str(id_of(told.about)), "reason": told.reason, "times": told.times, "what": told.message}
            logger.info("told of a device", extra=facts)
            outcome.events.append(told)

    def clock_jumped(self, now_ms: int) -> None:
        """The clock was set: nothing has been silent for as long as it seems, and nobody knows which cycle is over."""
        self._since_ms = now_ms
        self._current_at_ms = now_ms
        for device, twin in self._twins.items():
            self._watch(device, twin)
            if any(each.held for each in twin.properties.values()):
                self._silence.note(device, now_ms)

    def current(self, moment: Moment) -> list[Publication]:
        """
        Current twins to publish, so many at a time that following the devices stays cheap.

        To be called when everything else of the moment is durable.
        """
        publications: list[Publication] = []
        if moment.now_ms < self._current_at_ms:
            return publications
        while self._outdated and len(publications) < CURRENT_PER_TURN:
            device = next(iter(self._outdated))
            del self._outdated[device]
            publications.append(Publication(Channel.TWIN.topic(device), self._current(device, moment.now_ms), True))
        self._current_at_ms = moment.now_ms + len(publications) * 1000 // CURRENT_PER_S
        return publications

    def _current(self, device: DeviceId, now_ms: int) -> bytes:
        twin = self._twins[device]
        entries = {name: entry for name, each in twin.properties.items() if (entry := shown(each, versioned=True))}
        payload = CurrentTwin(now_ms, twin.state, twin.last_online, entries, twin.delta()).encode()
        if len(payload) <= MAX_PAYLOAD_BYTES:
            return payload
        why = f"the twin is longer than {MAX_PAYLOAD_BYTES} bytes, so it is not retained: ask on twin/get"
        return ErrorReply("", now_ms, 413, why).encode()

    def _watch(self, device: DeviceId, twin: Twin) -> None:
        for each in twin.properties.values():
            self._watch_property(device, each)

    def _watch_property(self, device: DeviceId, each: Property) -> None:
        self._silence.note(device, each.stale_at_ms(self._since_ms))
        self._silence.note(device, each.release_at_ms())

    # --- outcomes

    def seal(self, outcome: Outcome, most: int | None = None) -> bool:
        """
        Write down the twins that the outcome changed, as they are now; returns whether some are left.

        most: so many of them now; None for all.
        """
        count = len(outcome.unsealed)
        for _ in range(count if most is None else min(most, count)):
            device = outcome.unsealed.pop()
            if (twin := self._twins.get(device)) is not None:
                outcome.documents.update(twin_documents(twin, self._sealed.get(device)))
                self._sealed[device] = twin
        return bool(outcome.unsealed)

    def _unseal(self, device: DeviceId, outcome: Outcome) -> None:
        """Have everything deleted that was written down of a twin."""
        head, kept = twin_name(device), self._sealed.pop(device, None)
        outcome.documents[head] = None
        for name in kept.properties if kept else ():
            outcome.documents[f"{head}/{name}"] = None

    def _step(self, event: Event, moment: Moment, outcome: Outcome, *, asked_here: bool = False) -> Refuse | None:
        """asked_here: an answer to the event is not published but returned, if it is a no."""
        refused: Refuse | None = None
        device = id_of(event.device)
        twin, effects = step(self._twins.get(device), event, moment.now_ms)
        if twin is not None:
            self._twins[device] = twin
            self._note_silence(device, twin, event)
        else:
            self._twins.pop(device, None)
            self._silence.drop(device)
        for effect in effects:
            match effect:
                case Save():
                    outcome.unsealed.add(device)
                    self._outdated[device] = None
                case Forget():
                    outcome.unsealed.discard(device)
                    self._unseal(device, outcome)
                    outcome.gone.append(event.device)
                    for sample in [each for each in outcome.samples if each[0] == event.device]:
                        del outcome.samples[sample]
                case QueueReport(field, value):
                    outcome.report(event.device, field, value)
                case Tell(kind, reason, message):
                    uid = twin.uid if twin else ""
                    self.recorder.record(event.device, uid, kind, reason, message, moment.now_ms)
                case CountMissed(updates):
                    self.missed += updates
                case Record(name, at_ms, reading):
                    outcome.samples[event.device, name] = (at_ms, reading)
                case Refuse() if asked_here:
                    refused = effect
                case PublishResult() if asked_here:
                    pass
                case _:
                    outcome.publications.append(written(device, effect, moment.now_ms, moment.new_id))
        return refused

    def _note_silence(self, device: DeviceId, twin: Twin, event: Event) -> None:
        match event:
            case Updated():
                # Only what it names can have got an earlier deadline than the device has.
                for name in event.twin:
                    if (each := twin.properties.get(name)) is not None:
                        self._watch_property(device, each)
            case Declared() | Elapsed():
                self._watch(device, twin)

    def _member(self, device: DeviceId) -> Member:
        twin, each = self._twins.get(device), self._devices[device]
        description = each.labels.get("description", "")  # a label, as in KubeEdge
        return Member(device, description, twin.state if twin else "", twin.last_online if twin else "")

    def _say_members(
        self, moment: Moment, outcome: Outcome, added: Sequence[Member] = (), removed: Sequence[Member] = ()
    ) -> None:
        said = MembershipUpdate(moment.new_id(), moment.now_ms, tuple(added), tuple(removed))
        self._say(NodeChannel.MEMBERSHIP_UPDATED, said, outcome)

    def _say(self, channel: NodeChannel, message: MembershipUpdate | MembershipList, outcome: Outcome) -> None:
        outcome.publications.append(Publication(channel.topic(self.node), message.encode()))
