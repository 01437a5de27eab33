"""Field managers: who owns what after which writes, and what an apply does about it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apimachinery.errors import BadRequest, Conflict
from apimachinery.objects import LAST_APPLIED
from apiserver import fieldsets, kinds, managed, typed
from apiserver.managed import APPLY, UPDATE, Managers, NotTyped, Writer
from apiserver.typed import Type
from tests.test_apiserver_typed import SCHEMA, VALUES

TYPE = Type(
    kinds.root_schema("", {"type": "object", "properties": {"spec": SCHEMA, "status": SCHEMA}}), kinds.definitions()
)
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
NAME = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}


def body(spec: Any = None, **metadata: Any) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(NAME)
    made["metadata"] |= metadata
    return made | ({} if spec is None else {"spec": copy.deepcopy(spec)})


class Thing:
    """One object and its managers."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.managers: Managers = {}
        self.now = NOW

    def update(self, who: str, new: dict[str, Any], subresource: str = "") -> None:
        writer = Writer(who, UPDATE, "example.com/v1", subresource)
        if self.body is None:
            but = managed.ignored(subresource, new, has_status=True)
            self.managers = managed.after_create(new, TYPE, writer, self.now, but)
        else:
            but = managed.ignored(subresource, self.body, new, has_status=True)
            made = managed.difference(self.body, new, TYPE)
            self.managers = managed.after_update(made, self.managers, writer, self.now, but)
        self.body = new

    def apply(self, who: str, config: dict[str, Any], *, force: bool = False, subresource: str = "") -> None:
        writer = Writer(who, APPLY, "example.com/v1", subresource)
        but = managed.ignored(subresource, config, has_status=True)
        self.body, self.managers = managed.applied(
            self.body, config, TYPE, self.managers, writer, self.now, but, force=force
        )

    def owns(self, who: str, operation: str = APPLY, subresource: str = "") -> list[str]:
        held = self.managers.get(Writer(who, operation, "example.com/v1", subresource).identity)
        return [] if held is None else [fieldsets.shown(path) for path in fieldsets.paths(held.fields)]

    @property
    def spec(self) -> Any:
        assert self.body is not None
        return self.body.get("spec")


# ---- what applying does


def test_a_field_that_is_no_longer_applied_goes_when_nobody_else_has_it() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1, "labels": {"x": "1", "y": "1"}}))
    thing.apply("b", body({"labels": {"y": "1"}}))
    thing.apply("a", body({"one": 1}))
    assert thing.spec == {"one": 1, "labels": {"y": "1"}}
    thing.apply("b", body())
    assert thing.spec == {"one": 1}
    assert thing.owns("b") == []


def test_what_leads_to_nothing_goes_too_but_not_what_an_updater_put_beside_it() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1, "labels": {"x": "1"}, "map": [{"name": "m", "value": "v"}]}))
    thing.apply("a", body({"one": 1}))
    assert thing.spec == {"one": 1}
    thing.apply("a", body({"one": 1, "labels": {"x": "1"}}))
    thing.update("u", body({"one": 1, "labels": {"x": "1", "u": "1"}}))
    thing.apply("a", body({"one": 1}))
    assert thing.spec == {"one": 1, "labels": {"u": "1"}}


def test_entries_of_a_keyed_list_are_owned_one_by_one() -> None:
    thing = Thing()
    thing.apply("a", body({"map": [{"name": "x", "value": "v"}]}))
    thing.apply("b", body({"map": [{"name": "y"}]}))
    assert [entry["name"] for entry in thing.spec["map"]] == ["x", "y"]
    thing.apply("a", body())
    assert thing.spec == {"map": [{"name": "y"}]}


def test_a_set_and_a_list_that_is_one_thing() -> None:
    thing = Thing()
    thing.apply("a", body({"set": ["x"], "list": ["x"]}))
    thing.apply("b", body({"set": ["y"]}))
    assert thing.spec["set"] == ["x", "y"]
    with pytest.raises(Conflict, match=r"1 conflict: conflict with \"a\": \.spec\.list"):
        thing.apply("b", body({"set": ["y"], "list": ["y"]}))
    assert thing.spec["list"] == ["x"]


def test_a_conflict_names_every_field_and_who_has_it() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1, "labels": {"x": "1"}}))
    thing.update("u", body({"one": 1, "labels": {"x": "2"}}))
    with pytest.raises(Conflict) as caught:
        thing.apply("b", body({"one": 2, "labels": {"x": "3"}}))
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "a":\n- .spec.one\n'
        'conflicts with "u" using example.com/v1:\n- .spec.labels.x'
    )
    assert caught.value.status()["details"] == {
        "causes": [
            {"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".spec.one"},
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "u" using example.com/v1',
                "field": ".spec.labels.x",
            },
        ]
    }


def test_force_takes_a_field_and_sharing_a_value_needs_none() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1}))
    thing.apply("b", body({"one": 1}))
    assert thing.owns("a") == thing.owns("b") == [".spec.one"]
    thing.apply("b", body({"one": 2}), force=True)
    assert (thing.spec, thing.owns("a"), thing.owns("b")) == ({"one": 2}, [], [".spec.one"])


def test_one_name_is_two_managers_when_it_applies_and_updates() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1}))
    thing.update("a", body({"one": 2}))
    assert (thing.owns("a"), thing.owns("a", UPDATE)) == ([], [".spec.one"])
    with pytest.raises(Conflict, match=r'conflict with "a" using example.com/v1'):
        thing.apply("a", body({"one": 1}))


def test_applying_the_same_again_changes_nothing_not_even_the_time() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1}))
    before = thing.body, managed.written(thing.managers)
    thing.now = LATER
    thing.apply("a", body({"one": 1}))
    assert (thing.body, managed.written(thing.managers)) == before
    thing.apply("b", body({"one": 1}))
    assert [entry["time"] for entry in managed.written(thing.managers)] == [NOW, LATER]


def test_of_an_object_from_before_there_were_managers_everything_belongs_to_one() -> None:
    thing = Thing()
    thing.body = body({"one": 1, "labels": {"x": "1"}})
    thing.update("u", body({"one": 1, "labels": {"x": "1", "y": "1"}}))
    assert thing.managers == {}
    with pytest.raises(Conflict, match=r'conflict with "before-first-apply" using example.com/v1: .spec.one'):
        thing.apply("a", body({"one": 2}))
    thing.apply("a", body({"one": 1}))
    assert thing.owns("a") == [".spec.one"]
    assert ".spec.labels.x" in thing.owns("before-first-apply", UPDATE)


def test_kubectl_takes_over_what_it_had_applied_without_the_server() -> None:
    last = '{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"one":1,"labels":{"x":"1"}}}'
    thing = Thing()
    thing.update("kubectl-client-side-apply", body({"one": 1, "labels": {"x": "1"}}, annotations={LAST_APPLIED: last}))
    thing.apply("kubectl", body({"one": 2}))
    assert thing.spec["one"] == 2
    assert thing.body is not None
    assert '"one":2' in thing.body["metadata"]["annotations"][LAST_APPLIED]
    thing.update("other", body({"one": 2, "labels": {"x": "9"}}, annotations=thing.body["metadata"]["annotations"]))
    with pytest.raises(Conflict, match='"other" using'):
        thing.apply("kubectl", body({"one": 2, "labels": {"x": "1"}}))


def test_the_status_is_owned_through_its_own_way_in() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1}) | {"status": {"one": 1}})
    assert thing.owns("a") == [".spec.one"]
    thing.apply("a", body({"one": 9}) | {"status": {"one": 1}}, subresource="status")
    assert thing.owns("a", APPLY, "status") == [".status.one"]
    assert thing.spec == {"one": 1}
    thing.update("k", body({"one": 1}) | {"status": {"one": 2}}, subresource="status")
    assert thing.owns("k", UPDATE, "status") == [".status.one"]
    with pytest.raises(
        Conflict, match=r'conflict with "k" with subresource "status" using example.com/v1: .status.one'
    ):
        thing.apply("a", body() | {"status": {"one": 1}}, subresource="status")


# ---- what updating does


def test_an_update_takes_what_it_changes_and_nothing_else() -> None:
    thing = Thing()
    thing.update("a", body({"one": 1, "labels": {"x": "1"}}))
    assert thing.owns("a", UPDATE) == [".spec", ".spec.labels", ".spec.one", ".spec.labels.x"]
    thing.update("b", body({"one": 2, "labels": {"x": "1"}}, labels={"l": "1"}))
    assert thing.owns("b", UPDATE) == [".metadata.labels", ".metadata.labels.l", ".spec.one"]
    assert thing.owns("a", UPDATE) == [".spec", ".spec.labels", ".spec.labels.x"]
    thing.update("b", body({"one": 2}))
    assert (thing.owns("a", UPDATE), thing.owns("b", UPDATE)) == ([".spec"], [".spec.one"])


def test_what_the_server_says_of_an_object_belongs_to_nobody() -> None:
    thing = Thing()
    thing.update("a", body(uid="u", generation=1, creationTimestamp=NOW, resourceVersion="3", namespace="d"))
    assert thing.managers == {}


def test_updaters_are_counted_and_the_oldest_become_one() -> None:
    thing = Thing()
    thing.update("maker", body({"one": 0}))
    for number in range(1, 13):
        thing.now = f"2026-01-01T00:00:{number:02}Z"
        assert thing.body is not None
        labels = (thing.body["spec"].get("labels") or {}) | {f"l{number}": "x"}
        thing.update(f"u{number}", body({"one": 0, "labels": labels}))
    assert len(thing.managers) == managed.MAX_UPDATERS
    assert {".spec.one", ".spec.labels.l1", ".spec.labels.l2"} < set(thing.owns("ancient-changes", UPDATE))
    assert thing.owns("u12", UPDATE) == [".spec.labels.l12"]


# ---- what is written and read back


def test_entries_have_the_form_and_order_of_kubernetes() -> None:
    thing = Thing()
    thing.update("u", body({"one": 1}))
    thing.now = LATER
    thing.apply("a", body({"labels": {"x": "1"}}))
    thing.update("k", thing.body | {"status": {"one": 1}}, subresource="status")  # type: ignore[operator]
    entries = managed.written(thing.managers)
    assert entries == [
        {
            "manager": "a",
            "operation": "Apply",
            "apiVersion": "example.com/v1",
            "time": LATER,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:labels": {"f:x": {}}}},
        },
        {
            "manager": "u",
            "operation": "Update",
            "apiVersion": "example.com/v1",
            "time": NOW,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {".": {}, "f:one": {}}},
        },
        {
            "manager": "k",
            "operation": "Update",
            "apiVersion": "example.com/v1",
            "time": LATER,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:status": {".": {}, "f:one": {}}},
            "subresource": "status",
        },
    ]
    assert managed.read(entries) == managed.held_by(body(managedFields=entries)) == thing.managers


@pytest.mark.parametrize(
    "entries",
    [
        "x",
        [1],
        [{}],
        [{"manager": "a", "operation": "Guess", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [{"manager": "a", "operation": "Apply", "fieldsType": "FieldsV2", "fieldsV1": {}}],
        [{"manager": "a", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"x": 1}}],
        [{"manager": 7, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}],
    ],
)
def test_what_no_server_wrote_is_not_read(entries: Any) -> None:
    assert managed.read(entries) is None


def test_a_client_may_rewrite_and_clear_the_managers_but_not_lose_them() -> None:
    thing = Thing()
    thing.apply("a", body({"one": 1}))
    held = body({"one": 1}, managedFields=managed.written(thing.managers))
    other = [managed.written(thing.managers)[0] | {"manager": "b"}]
    assert next(iter(managed.given(body(managedFields=other), held, ""))).manager == "b"
    assert managed.given(body(managedFields=[{}]), held, "") == {}
    for nothing in (None, [], [{"manager": 1}], "x"):
        assert managed.given(body(managedFields=nothing), held, "") == thing.managers
    assert managed.given(body(managedFields=[{}]), held, "status") == thing.managers


def test_what_cannot_be_applied_is_said_in_a_servers_words() -> None:
    with pytest.raises(BadRequest, match=r"metadata.managedFields must be nil"):
        managed.check_config(body(managedFields=[{}]), TYPE, "example.com/v1")
    with pytest.raises(NotTyped) as caught:
        managed.check_config(body({"two": 1}, namespace="d"), TYPE, "example.com/v1")
    told = (
        "failed to create typed patch object (d/t; example.com/v1, Kind=Thing): .spec.two: field not declared in schema"
    )
    assert caught.value.message == told
    assert (caught.value.status()["code"], caught.value.status()["reason"]) == (500, "")
    with pytest.raises(NotTyped, match=r"errors:\n  \.spec\.two: .*\n  \.spec\.three: "):
        managed.check_config(body({"two": 1, "three": 1}), TYPE, "example.com/v1")


def test_who_gives_no_name_is_called_by_its_program() -> None:
    assert managed.user_agent_manager("kubectl/v1.32 (linux)") == "kubectl"
    assert managed.user_agent_manager("") == "unknown"
    assert managed.user_agent_manager("\x01é" * 100) == "é" * 64
    assert managed.check_name("a" * 129)[0].reason == "FieldValueTooLong"
    assert managed.check_name("a\n")[0].reason == "FieldValueInvalid"
    assert managed.check_name("kubectl edit") == []


# ---- histories

WRITES = st.lists(
    st.tuples(st.sampled_from(["apply", "force", "update"]), st.sampled_from(["a", "b", "c"]), VALUES), max_size=6
)


def _said(value: Any) -> Any:
    """Without nulls and empty containers: to apply these says nothing that would outlive what is in them."""
    if not isinstance(value, dict):
        return value
    parts = {name: _said(below) for name, below in value.items()}
    return {name: below for name, below in parts.items() if below not in ({}, [], None)}


@settings(max_examples=60)
@given(WRITES)
def test_any_history_leaves_every_writer_what_it_asked_for(writes: Any) -> None:
    thing = Thing()
    thing.update("maker", body({}))
    for kind, who, spec in writes:
        spec = spec if kind == "update" else _said(spec)
        before = copy.deepcopy(thing.body), thing.managers
        if kind == "update":
            thing.update(who, body(spec))
            assert thing.spec == spec
        else:
            try:
                thing.apply(who, body(spec), force=kind == "force")
            except Conflict:
                assert kind == "apply"
                assert (thing.body, thing.managers) == before
                continue
            _check_applied(thing, who, spec, before[1], forced=kind == "force")
        assert managed.held_by(body(managedFields=managed.written(thing.managers))) == thing.managers


def _check_applied(thing: Thing, who: str, spec: Any, before: Managers, *, forced: bool) -> None:
    claimed = typed.fieldset_of({"spec": spec}, TYPE)
    held = thing.managers.get(Writer(who, APPLY, "", ""))
    assert (held.fields if held else {}) == claimed
    assert not fieldsets.intersection(typed.compare({"spec": spec}, {"spec": thing.spec}, TYPE).changed, claimed)
    if not forced:
        for identity, other in before.items():
            if identity.manager != who and identity in thing.managers:
                gone = fieldsets.difference(other.fields, thing.managers[identity].fields)
                assert not fieldsets.intersection(gone, claimed), "an apply without force took a field"
    again = copy.deepcopy(thing.body), thing.managers
    thing.apply(who, body(spec), force=forced)
    assert typed.same(thing.body, again[0])
    assert thing.managers == again[1]
