"""
What becomes of a body between the client's wish and the store: pruned, defaulted, filled in, judged.

For custom resources the schema says how; for a few built-in kinds the rules are here, so that what
people expect of them holds (a Secret's stringData, a new Pod's phase, a definition's conditions).

Pure, but for remembering compiled schemas.
"""

import base64
from collections.abc import Callable, Mapping

from apimachinery.errors import BadRequest, Cause
from apimachinery.keys import Resource
from apimachinery.objects import JSON
from apimachinery.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
)
from apiserver import crds, kinds, metadata, pruning, rbac, signing
from apiserver.definitions import Catalogue, Definition
from apiserver.metadata import Facts, metadata_of
from apiserver.schemas import Schema
from apiserver.typed import Type, unknown_fields


class Admission:
    """The rules, with the schemas and types compiled so far."""

    def __init__(self) -> None:
        self._schemas: dict[Resource, tuple[Mapping[str, JSON], Schema]] = {}
        self._types: dict[Resource, tuple[Mapping[str, JSON] | None, Type]] = {}

    def admit(
        self,
        body: dict[str, JSON],
        current: Mapping[str, JSON] | None,
        definition: Definition,
        catalogue: Catalogue,
        facts: Facts,
        field_validation: str,
    ) -> tuple[str, ...]:
        """
        Make `body` what is to be stored, in place; returns warnings for the client.

        current: what it replaces, None for a new object. Parts that it shares with the body may be pruned and
        defaulted with it, as they would be if they were read now. field_validation: as in ApiRequest.
        Raises Invalid with all causes, BadRequest for unknown fields when asked to be strict.
        """
        causes = metadata.check(body, definition)
        if current is not None:
            causes += metadata.change_causes(body, current)
        schema = self._schema(definition)
        if schema is not None and schema.is_sound(body):
            schema, unknown = None, []
        elif schema is not None:
            unknown = schema.unknown_fields(body)
        elif field_validation == "Ignore":
            unknown = []
        else:
            unknown = list(unknown_fields(body, current, self.type_of(definition)))
        if definition.resource == CUSTOM_RESOURCE_DEFINITIONS:
            unknown += crds.unknown_fields(body)
        warnings = judge_unknown([f'unknown field "{path}"' for path in unknown], definition.resource, field_validation)
        if schema is not None:
            schema.prune(body)
            schema.default(body)
            causes += schema.causes(body)
        if definition.stored_schema is not None:
            # What is read from the store in its own version is as it lies there, so it has to be whole.
            pruning.default(body, definition.stored_schema)
        if current is None and definition.has_status:
            _first_status(body, definition)
        _fill_in(body, current, definition, catalogue, facts, causes)
        if causes:
            raise metadata.invalid(definition.resource, str(metadata_of(body).get("name", "")), causes)
        return warnings

    def type_of(self, definition: Definition) -> Type:
        """The type of a kind's whole objects, metadata and all."""
        held = self._types.get(definition.resource)
        if held is None or held[0] is not definition.schema:
            own = kinds.OPEN if definition.is_custom and definition.schema is None else definition.schema
            made = Type(kinds.root_schema(definition.resource.kind, own), kinds.definitions())
            held = self._types[definition.resource] = (definition.schema, made)
        return held[1]

    def _schema(self, definition: Definition) -> Schema | None:
        if definition.schema is None:
            return None
        held = self._schemas.get(definition.resource)
        if held is None or held[0] is not definition.schema:
            held = self._schemas[definition.resource] = (definition.schema, Schema(definition.schema))
        return held[1]


def judge_unknown(found: list[str], resource: Resource, field_validation: str) -> tuple[str, ...]:
    """Warnings for unknown or repeated fields, or BadRequest, as `fieldValidation` wants it; Warn is the default."""
    if not found or field_validation == "Ignore":
        return ()
    if field_validation == "Strict":
        raise BadRequest(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(found)}"
        )
    return tuple(found)


def _first_status(body: dict[str, JSON], definition: Definition) -> None:
    """A new object's status is the server's to set; a node brings its own, as a kubelet's registration does."""
    if definition.resource == NODES:
        return
    if definition.resource == PODS:
        body["status"] = {"phase": "Pending"}
    elif definition.resource == NAMESPACES:
        body["status"] = {"phase": "Active"}
    else:
        body.pop("status", None)


def _fill_in(
    body: dict[str, JSON],
    current: Mapping[str, JSON] | None,
    definition: Definition,
    catalogue: Catalogue,
    facts: Facts,
    causes: list[Cause],
) -> None:
    if definition.resource == CUSTOM_RESOURCE_DEFINITIONS:
        crds.fill_in(body)
        causes += crds.causes_of(body)
        causes += crds.change_causes(body, current) if current is not None else []
        if not causes:
            crds.establish(body, catalogue, facts.now)
    elif definition.resource == CERTIFICATE_SIGNING_REQUESTS:
        causes += signing.causes_of(body, current, facts.now)
    elif (rule := _RULES.get(definition.resource)) is not None:
        causes += rule(body)


def _namespace(body: dict[str, JSON]) -> list[Cause]:
    labels = metadata_of(body).setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = metadata_of(body)["name"]
    body.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    return []


def _secret(body: dict[str, JSON]) -> list[Cause]:
    texts, held = body.pop("stringData", None), body.get("data")
    if texts is None:
        texts = {}
    if held is None:
        held = {}
    for name, pairs in (("stringData", texts), ("data", held)):
        if not isinstance(pairs, dict) or any(not isinstance(value, str) for value in pairs.values()):
            raise BadRequest(
                f'Secret in version "v1" cannot be handled as a Secret: {name} must be an object of strings'
            )
    held = held | {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    for name, value in held.items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise BadRequest(
                f'Secret in version "v1" cannot be handled as a Secret: data["{name}"] is not base64'
            ) from None
    if held:
        body["data"] = held
    if not body.get("type"):
        body["type"] = "Opaque"
    return []


def _service(body: dict[str, JSON]) -> list[Cause]:
    if isinstance(body.get("spec"), dict):
        body["spec"].setdefault("type", "ClusterIP")
    return []


_RULES: Mapping[Resource, Callable[[dict[str, JSON]], list[Cause]]] = {
    NAMESPACES: _namespace,
    rbac.ROLES: rbac.admit_role,
    rbac.CLUSTER_ROLES: rbac.admit_role,
    rbac.ROLE_BINDINGS: rbac.admit_binding,
    rbac.CLUSTER_ROLE_BINDINGS: rbac.admit_binding,
    SECRETS: _secret,
    SERVICES: _service,
}
