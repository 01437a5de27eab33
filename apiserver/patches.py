"""
Patches: an object and a description of changes in, the changed object out.

JSON patch (RFC 6902) is `jsonpatch`'s work, merge patch (RFC 7386) is ten lines, and the strategic
merge patch that kubectl sends for built-in kinds is in `apiserver.strategic`. Server-side apply is no patch
of this sort: it needs an account of who owns which field (`apiserver.managed`).

Pure. The given object is not changed.
"""

import copy
import json
from collections.abc import Mapping

import jsonpatch

from apimachinery.errors import ApiError, BadRequest, Invalid, TooLarge, UnsupportedMediaType
from apimachinery.objects import JSON
from apiserver import strategic
from componentbase.jsonbytes import read

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

MAX_OPERATIONS = 10_000  # kube-apiserver's limit for one JSON patch
MAX_COPIED_BYTES = 3 << 20  # by all copies of one patch, as there: forty that double an object would take a TiB


def apply(current: Mapping[str, JSON], patch: bytes, content_type: str, *, is_custom: bool) -> dict[str, JSON]:
    """
    The object after the patch.

    content_type: the request's, parameters and all. is_custom: custom resources know no strategic merge.
    Raises BadRequest, UnsupportedMediaType, TooLarge or Invalid.
    """
    return Patch(patch, content_type).applied(current, is_custom=is_custom)


class Patch:
    """
    A patch as it was sent, read when it is made and judged when it is applied.

    So that the turn of a large one is short: what it is applied to can be held still for that alone.
    """

    def __init__(self, patch: bytes, content_type: str) -> None:
        """content_type: the request's, parameters and all."""
        self._media_type = content_type.partition(";")[0].strip().lower()
        self._wrong = ""
        self._value: JSON = None
        try:
            self._value = read(patch)
        except (ValueError, RecursionError) as exc:
            self._wrong = f"the patch is not JSON: {exc}"

    def applied(self, current: Mapping[str, JSON], *, is_custom: bool) -> dict[str, JSON]:
        """The object after the patch, with which it may share parts; as `apply`."""
        supported = [JSON_PATCH, MERGE_PATCH, *([] if is_custom else [STRATEGIC_PATCH])]
        if self._media_type not in supported:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join((*supported, APPLY_PATCH))
            )
        if self._wrong:
            raise BadRequest(self._wrong)
        value = self._value
        if self._media_type == JSON_PATCH:
            return _operations(current, value)
        if not isinstance(value, Mapping):
            raise BadRequest("the patch must be a JSON object")
        result = merge(current, value) if self._media_type == MERGE_PATCH else strategic.merge(current, value)
        assert isinstance(result, dict), "an object patched with an object is one"
        return result


def merge(current: JSON, patch: JSON) -> JSON:
    """RFC 7386: null removes, objects are merged, anything else replaces. The result shares parts with both."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(current) if isinstance(current, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _operations(current: Mapping[str, JSON], operations: JSON) -> dict[str, JSON]:
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(f"the JSON patch has {len(operations)} operations, at most {MAX_OPERATIONS} are allowed")
    try:
        result: JSON = copy.deepcopy(dict(current))
        room = MAX_COPIED_BYTES
        for operation in operations:
            if isinstance(operation, dict) and operation.get("op") == "copy":
                room -= len(json.dumps(jsonpatch.JsonPointer(operation["from"]).resolve(result)))
                if room < 0:
                    raise _refused(f"its copies come to more than {MAX_COPIED_BYTES} bytes")
            result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
    except jsonpatch.JsonPatchTestFailed as exc:
        raise _refused(f"testing failed: {_first_line(exc)}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as exc:
        raise _refused(_first_line(exc)) from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        # The library lets some of these out where a path runs through a value that is no container.
        raise _refused(_first_line(exc)) from None
    if not isinstance(result, dict):
        raise _refused("it does not leave an object")
    return result


def _refused(why: str) -> ApiError:
    return Invalid(f"the server rejected our request due to an error in our request: the JSON patch: {why}")


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]
