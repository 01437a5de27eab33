"""
Writes over HTTP: bodies and options in, plans out to the storage, answers back.

The shell around `apiserver.plans`: it reads bodies, takes time and chance from the machine, hands the
plan to the storage's writer and turns what came of it into an answer.
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from apimachinery.errors import BadRequest, Cause, Invalid, MethodNotAllowed, NotFound, UnsupportedMediaType
from apimachinery.objects import JSON, NotJSON, Object
from apimachinery.resources import CERTIFICATE_SIGNING_REQUESTS
from apiserver import managed, patches, plans, protobuf, rbac
from apiserver.admission import Admission, judge_unknown
from apiserver.builtins import REVIEWS
from apiserver.definitions import Catalogue
from apiserver.largebodies import LARGE_BYTES
from apiserver.messages import Request
from apiserver.metadata import Facts
from apiserver.plans import DeleteOptions, Plan, View
from apiserver.protocols import Answer
from apiserver.requests import ApiRequest, Verb
from apiserver.scale import scale_of
from apiserver.selection import selects
from apiserver.users import ANONYMOUS, User
from componentbase.jsonbytes import sorted_

_REVIEWS = frozenset(definition.resource for definition in REVIEWS)
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels and no look-alikes, so that no word comes of it
YAML = "application/yaml"
_JUDGED_BY_RIGHTS = frozenset((rbac.GROUP, CERTIFICATE_SIGNING_REQUESTS.group))
"""API groups in which it depends on the rights of who writes what may be written: no view has those."""
_POLICIES = ("Foreground", "Background", "Orphan")

Guard = Callable[[Callable[[View], Plan], User], Callable[[View], Plan]]
"""A plan to the same plan, refused where its user may not have it carried out."""


class _Maker(NamedTuple):
    """What a request asks for."""

    make: Callable[[View], Plan]
    """To be called once."""
    dry_run: bool
    warnings: tuple[str, ...]


class Committed(NamedTuple):
    """A plan and the objects of its writes, as they were committed."""

    plan: Plan
    objects: Sequence[Object]


class Committer(Protocol):
    """The storage's writing half."""

    def catalogue(self) -> Catalogue: ...

    async def commit(self, make: Callable[[View], Plan], *, again: Callable[[View], Plan] | None = None) -> Committed:
        """
        Make the plan against the state at its turn and carry it out durably. What `make` raises comes out.

        again: given where a large object may be written. Then `make` may be called before its turn, and this one at
        it, should the first one's plan be void by then.
        """

    async def rehearse(self, make: Callable[[View], Plan]) -> Plan:
        """Make the plan against the state at its turn and leave it at that."""


class Asked(Protocol):
    """Who answers what is created only for its answer: reviews and token requests."""

    def answer(self, request: ApiRequest, body: dict[str, JSON], user: User, facts: Facts) -> dict[str, JSON]:
        """The body with its status. Raises ApiError."""


class PlannedWrites:
    """`apiserver.protocols.Writes` over a Committer."""

    def __init__(self, storage: Committer, *, asked: Asked | None = None, guard: Guard | None = None) -> None:
        """asked: without it, reviews are not found. guard: without it, whoever gets here may write everything."""
        self._storage = storage
        self._asked = asked
        self._guard = guard
        self._admission = Admission()

    async def write(self, request: ApiRequest, http: Request) -> Answer:
        if self._asked is not None and (request.resource in _REVIEWS or request.subresource == "token"):
            return self._review(self._asked, request, http)
        if request.subresource not in ("", "status", "scale", "approval"):
            raise NotFound("the server could not find the requested resource")
        if request.subresource and request.verb not in (Verb.UPDATE, Verb.PATCH):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        _check_options(request, http)
        manager = request.field_manager or managed.user_agent_manager(http.headers.get("user-agent", ""))
        request = replace(request, field_manager=manager)
        made = self._maker(request, http)
        again = None
        if (
            len(http.body) > LARGE_BYTES
            and request.verb in (Verb.UPDATE, Verb.PATCH)
            and request.resource.group not in _JUDGED_BY_RIGHTS
        ):
            # From the bytes: a plan takes its body over, and admission writes into it.
            again = lambda view: self._maker(request, http).make(view)  # noqa: E731
        try:
            plan, objects = await self._carry_out(made, again)
        except NotJSON as exc:
            raise BadRequest(f"the object cannot be written as JSON: {exc}") from None
        shown = sorted_(plan.answer) if plan.answer is not None else objects[0]
        if request.subresource == "scale":
            shown = self._scale(request, shown)
        return Answer(plan.status, shown, (*made.warnings, *plan.warnings))

    def _maker(self, request: ApiRequest, http: Request) -> _Maker:
        """Raises ApiError for a body that cannot be read."""
        warnings: tuple[str, ...] = ()
        dry_run = request.dry_run
        match request.verb:
            case Verb.CREATE | Verb.UPDATE:
                body, repeated = decode(http)
                warnings = judge_unknown(repeated, request.resource, request.field_validation)
                make = self._create(request, body) if request.verb is Verb.CREATE else self._replace(request, body)
            case Verb.PATCH if media_type_of(http) == patches.APPLY_PATCH and request.subresource == "scale":
                raise UnsupportedMediaType(
                    "a Scale is not applied by this server: patch it with " + patches.MERGE_PATCH
                )
            case Verb.PATCH if media_type_of(http) == patches.APPLY_PATCH:
                body, repeated = _yaml(http.body)
                warnings = _judge_repeated(repeated, request.field_validation)
                make = self._apply(request, body)
            case Verb.PATCH:
                make = self._patch(request, http)
            case Verb.DELETE | Verb.DELETE_COLLECTION:
                options = _delete_options(request, http)
                dry_run = dry_run or options.dry_run
                make = _delete(request, options.plan) if request.name else _delete_all(request, options.plan)
            case _:
                raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if self._guard is not None:
            make = self._guard(make, http.user or ANONYMOUS)
        return _Maker(make, dry_run, warnings)

    async def _carry_out(self, made: _Maker, again: Callable[[View], Plan] | None) -> tuple[Plan, list[bytes]]:
        if not made.dry_run:
            committed = await self._storage.commit(made.make, again=again)
            return committed.plan, [item.body for item in committed.objects]
        plan = await self._storage.rehearse(made.make)
        return plan, [sorted_(write.body) for write in plan.writes]

    def _scale(self, request: ApiRequest, body: bytes) -> bytes:
        definition = self._storage.catalogue().of(request.resource)
        if definition is None:
            raise NotFound("the server could not find the requested resource")
        return json.dumps(scale_of(json.loads(body), definition), separators=(",", ":")).encode()

    def _review(self, asked: Asked, request: ApiRequest, http: Request) -> Answer:
        if request.verb is not Verb.CREATE:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        body, _ = decode(http)
        answer = asked.answer(request, body, http.user or ANONYMOUS, facts())
        return Answer(201, json.dumps(answer, separators=(",", ":")).encode())

    def _create(self, request: ApiRequest, body: dict[str, JSON]) -> Callable[[View], Plan]:
        return lambda view: plans.create(view, request, body, facts(), self._admission)

    def _replace(self, request: ApiRequest, body: dict[str, JSON]) -> Callable[[View], Plan]:
        return lambda view: plans.update(view, request, lambda _: body, facts(), self._admission)

    def _apply(self, request: ApiRequest, body: dict[str, JSON]) -> Callable[[View], Plan]:
        return lambda view: plans.apply(view, request, body, facts(), self._admission)

    def _patch(self, request: ApiRequest, http: Request) -> Callable[[View], Plan]:
        patch = patches.Patch(http.body, http.headers.get("content-type", ""))

        def make(view: View) -> Plan:
            definition = view.catalogue.of(request.resource)
            is_custom = definition is not None and definition.is_custom

            def change(current: dict[str, JSON]) -> dict[str, JSON]:
                return patch.applied(current, is_custom=is_custom)

            return plans.update(view, request, change, facts(), self._admission)

        return make


def facts() -> Facts:
    """The present moment, a fresh uid and a fresh suffix."""
    suffix = "".join(random.choices(_SUFFIX, k=5))  # noqa: S311  # a name, not a secret
    return Facts(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), str(uuid.uuid4()), suffix)


def decode(http: Request) -> tuple[dict[str, JSON], list[str]]:
    """
    A request's object, and a sentence for each field that it repeats.

    Raises UnsupportedMediaType or BadRequest.
    """
    media_type = media_type_of(http)
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(http.body), []
    if media_type == YAML:
        return _yaml(http.body)
    if media_type != "application/json":
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: application/json, "
            f"{YAML}, {protobuf.MEDIA_TYPE}"
        )
    return _json(http.body)


def media_type_of(http: Request) -> str:
    """The body's media type without its parameters; JSON where none is said."""
    return http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def _yaml(data: bytes) -> tuple[dict[str, JSON], list[str]]:
    """An object in YAML. Most clients send JSON, which is YAML too, and ten times faster to read as what it is."""
    if data.lstrip().startswith(b"{"):
        try:
            return _json(data)
        except BadRequest:
            pass  # YAML has this form as well
    from apiserver import yamlbodies  # PyYAML is for who sends it

    value, repeated = yamlbodies.load(data)
    if not isinstance(value, dict):
        raise BadRequest("the object provided is unrecognized: it must be an object")
    return value, repeated


def _judge_repeated(repeated: list[str], field_validation: str) -> tuple[str, ...]:
    """`admission.judge_unknown`, in the words that an apply has for it."""
    if repeated and field_validation == "Strict":
        raise BadRequest(f"error strict decoding YAML: {', '.join(repeated)}")
    return () if field_validation == "Ignore" else tuple(repeated)


def _json(data: bytes) -> tuple[dict[str, JSON], list[str]]:
    repeated: list[str] = []

    def no_repeats(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            repeated.extend(f'duplicate field "{name}"' for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        return value

    try:
        value = json.loads(data, object_pairs_hook=no_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the object provided is unrecognized: it is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise BadRequest("the object provided is unrecognized: it must be a JSON object")
    return value, repeated


def _no_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


def _check_options(request: ApiRequest, http: Request) -> None:
    """The options that only writers give (metav1's CreateOptions, UpdateOptions and PatchOptions)."""
    causes = list(managed.check_name(request.field_manager))
    if request.verb is Verb.PATCH:
        applies = media_type_of(http) == patches.APPLY_PATCH
        if applies and not request.field_manager:
            causes.append(Cause("fieldManager", "FieldValueRequired", "Required value: is required for apply patch"))
        if request.force is not None and not applies:
            message = "Forbidden: may not be specified for non-apply patch"
            causes.append(Cause("force", "FieldValueForbidden", message))
    if causes:
        raise _wrong_options(f"{request.verb.title()}Options", causes)


def _wrong_options(kind: str, causes: list[Cause]) -> Invalid:
    told = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
    told = told if len(causes) == 1 else f"[{told}]"
    return Invalid(f'{kind}.meta.k8s.io "" is invalid: {told}', causes=causes, kind=kind, group="meta.k8s.io")


class _DeleteOptions(NamedTuple):
    plan: DeleteOptions
    dry_run: bool


def _delete_options(request: ApiRequest, http: Request) -> _DeleteOptions:
    """From the body, where there is one, and from the query."""
    body: Mapping[str, JSON] = decode(http)[0] if http.body.strip() else {}
    preconditions = body.get("preconditions")
    held = preconditions if isinstance(preconditions, Mapping) else {}
    policy = request.propagation or body.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    causes = []
    if policy and isinstance(orphan, bool):
        message = f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set'
        causes.append(Cause("propagationPolicy", "FieldValueInvalid", message))
    elif policy and policy not in _POLICIES:
        supported = ", ".join(f'"{name}"' for name in _POLICIES)
        message = f"Unsupported value: {json.dumps(policy)}: supported values: {supported}"
        causes.append(Cause("propagationPolicy", "FieldValueNotSupported", message))
    if body.get("dryRun") not in (None, [], ["All"]):
        message = f'Unsupported value: {json.dumps(body["dryRun"])}: supported values: "All"'
        causes.append(Cause("dryRun", "FieldValueNotSupported", message))
    if causes:
        raise _wrong_options("DeleteOptions", causes)
    if isinstance(orphan, bool):
        policy = "Orphan" if orphan else "Background"
    options = DeleteOptions(
        uid=str(held.get("uid") or ""),
        resource_version=str(held.get("resourceVersion") or ""),
        propagation=policy,
    )
    return _DeleteOptions(options, dry_run=bool(body.get("dryRun")))


def _delete(request: ApiRequest, options: DeleteOptions) -> Callable[[View], Plan]:
    return lambda view: plans.delete(view, plans.place_of(view, request), options, facts())


def _delete_all(request: ApiRequest, options: DeleteOptions) -> Callable[[View], Plan]:
    def make(view: View) -> Plan:
        writes: list[plans.Put | plans.Remove] = []
        for item in view.all_of(view.catalogue.place_of(request.resource), request.namespace):
            if view.get(item.key) is not None and selects(item, request.labels, request.fields):
                writes += plans.delete(view, item.key, options, facts()).writes
        return Plan(200, tuple(writes), answer=plans.done())

    return make
