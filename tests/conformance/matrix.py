"""
Who judges what where: the features, the clients, the places, and which of them do not go together.

The tests are parametrized from here, and docs/conformance.md is printed from here:

    python -m tests.conformance.matrix
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

KUBECTL_OLD, KUBECTL_NEW = "kubectl-debian", "kubectl-current"
KUBERNETES, KUBERNETES_ASYNCIO, LIGHTKUBE, KR8S = "kubernetes", "kubernetes_asyncio", "lightkube", "kr8s"
KUBECTLS = (KUBECTL_OLD, KUBECTL_NEW)
PYTHONS = (KUBERNETES, KUBERNETES_ASYNCIO, LIGHTKUBE, KR8S)
CLIENTS = (*KUBECTLS, *PYTHONS)

EMBEDDED, ONLINE, OFFLINE, RESTARTED = "embedded", "online", "offline", "restarted"
PLACES = {
    EMBEDDED: "the embedded apiserver",
    ONLINE: "the edge's API, with the cloud",
    OFFLINE: "the edge's API, cloudcore killed",
    RESTARTED: "the same, edgecore killed too and started again",
}


class Offline(Enum):
    """What a node without the cloud does."""

    WORKS = "✓"
    REFUSED = "503"
    """Refuses at once, saying why: it is the cluster's to answer."""


class Feature(NamedTuple):
    """A row. Its check is the function of that name in a module of tests.conformance.checks."""

    name: str
    title: str
    offline: Offline = Offline.WORKS


def _refused(name: str, title: str) -> Feature:
    return Feature(name, title, Offline.REFUSED)


READS = (
    Feature("get", "get"),
    Feature("get_missing", "get what is not there: 404"),
    Feature("list_all", "list"),
    Feature("list_everywhere", "list over all namespaces"),
    Feature("label_selectors", "label selectors: =, !=, in, notin, exists"),
    Feature("field_selectors", "field selectors: metadata.name, spec.nodeName, status.phase"),
    Feature("bad_selector", "a malformed selector: 400"),
    Feature("pages", "limit and continue"),
    Feature("consistent_version", "one resourceVersion for a list and all its pages"),
    Feature("table", "Table"),
    Feature("partial_metadata", "PartialObjectMetadata"),
    Feature("discovery", "discovery"),
    Feature("openapi", "OpenAPI v2 and v3"),
    Feature("version", "/version"),
)
WATCHES = (
    Feature("watch", "watch: the state, then what changes"),
    Feature("watch_from_list", "watch from a list's version"),
    Feature("resume", "resume from an event's version"),
    Feature("bookmarks", "bookmarks"),
    Feature("send_initial_events", "sendInitialEvents"),
    Feature("watch_ends", "timeoutSeconds ends a watch cleanly"),
    Feature("gone", "a version that is forgotten: 410"),
    Feature("informer", "informer: list, watch, cache, handlers"),
    Feature("wait", "wait for a condition"),
)
WRITES = (
    _refused("create", "create, then read what was written"),
    _refused("own_write", "see one's own write in one's watch"),
    _refused("create_existing", "create what exists: 409"),
    _refused("create_invalid", "create what the schema forbids: 422"),
    _refused("strict", "unknown field with fieldValidation=Strict: 400"),
    _refused("generate_name", "generateName"),
    _refused("dry_run", "dry run"),
    _refused("update", "update"),
    _refused("stale_update", "update with a stale version: 409"),
    _refused("json_patch", "JSON patch"),
    _refused("merge_patch", "merge patch"),
    _refused("strategic_patch", "strategic merge patch"),
    _refused("server_side_apply", "server-side apply"),
    _refused("apply_conflict", "server-side apply of another's field: 409, and forced"),
    _refused("status_subresource", "status subresource: status only, spec only"),
    _refused("delete", "delete"),
    _refused("preconditions", "delete with a precondition that fails: 409"),
    _refused("finalizers", "finalizers"),
    _refused("delete_by_selector", "delete by label selector"),
    _refused("can_i", "SelfSubjectAccessReview"),
    _refused("token", "TokenRequest"),
)
NODES_OWN = (
    Feature("pod_status", "status of the node's own Pod"),
    Feature("no_change", "a status that is there already: no new version, no event"),
    Feature("renew_lease", "renew a Lease"),
    Feature("leader_election", "leader election: stay the leader"),
    Feature("event", "create an Event"),
)
COMMANDS = (
    Feature("kubectl_get_watch", "kubectl get -w, as a table"),
    Feature("kubectl_explain", "kubectl explain"),
    Feature("kubectl_describe", "kubectl describe"),
    _refused("kubectl_apply", "kubectl apply of a custom resource, three-way"),
    _refused("kubectl_apply_configmap", "kubectl apply of a ConfigMap, three-way"),
    _refused("kubectl_prune", "kubectl apply --prune"),
    _refused("kubectl_diff", "kubectl diff"),
    _refused("kubectl_scale", "kubectl scale"),
    _refused("kubectl_wait_for_deletion", "kubectl wait --for=delete"),
)
SECTIONS: Mapping[str, tuple[Feature, ...]] = {
    "Reads": READS,
    "Watches": WATCHES,
    "Writes and reviews": WRITES,
    "What is the node's own to say": NODES_OWN,
    "kubectl's own commands": COMMANDS,
}
FEATURES = {feature.name: feature for section in SECTIONS.values() for feature in section}

_HIDDEN_VERSION = "lists and watches by itself, and takes no version"
_NO_RAW = "has no request of one's own"

WITHOUT: Mapping[str, Mapping[str, str]] = {
    "bad_selector": {LIGHTKUBE: "makes them itself, and well"},
    "consistent_version": {
        **dict.fromkeys(KUBECTLS, "joins the pages, and drops the list's version"),
        LIGHTKUBE: "joins the pages",
    },
    "table": {LIGHTKUBE: _NO_RAW},
    "partial_metadata": {**dict.fromkeys(KUBECTLS, "asks for it nowhere"), LIGHTKUBE: _NO_RAW},
    "discovery": {LIGHTKUBE: "does none: its kinds are classes"},
    "openapi": {LIGHTKUBE: _NO_RAW},
    "version": {LIGHTKUBE: _NO_RAW},
    "watch_from_list": dict.fromkeys(KUBECTLS, _HIDDEN_VERSION),
    "resume": dict.fromkeys(KUBECTLS, _HIDDEN_VERSION),
    "bookmarks": {**dict.fromkeys(KUBECTLS, _HIDDEN_VERSION), LIGHTKUBE: "never asks for them"},
    "send_initial_events": {
        **dict.fromkeys(KUBECTLS, "asks for it nowhere"),
        LIGHTKUBE: "has no such option",
    },
    "watch_ends": {
        **dict.fromkeys(KUBECTLS, "has no such option"),
        LIGHTKUBE: "asks again by itself",
    },
    "gone": {
        **dict.fromkeys(KUBECTLS, _HIDDEN_VERSION),
        KR8S: "asks again for the same version, for ever",
    },
    "informer": dict.fromkeys((*KUBECTLS, KUBERNETES_ASYNCIO, LIGHTKUBE, KR8S), "has none"),
    "wait": dict.fromkeys((KUBERNETES, KUBERNETES_ASYNCIO), "has none"),
    "own_write": dict.fromkeys(KUBECTLS, _HIDDEN_VERSION),
    "strict": {KUBECTL_OLD: "validates by itself", LIGHTKUBE: "has no such option"},
    "preconditions": {
        **dict.fromkeys(KUBECTLS, "sends none of the user's"),
        LIGHTKUBE: "has no such option",
    },
    "token": {KUBECTL_OLD: "`create token` came with 1.24"},
    "leader_election": dict.fromkeys((*KUBECTLS, LIGHTKUBE, KR8S), "has none"),
    **{feature.name: dict.fromkeys(PYTHONS, "kubectl only") for feature in COMMANDS},
}
"""Feature: the clients that do not offer it, and why."""


GAPS: Mapping[tuple[str, str], str] = {
    (
        ONLINE,
        "kubectl_apply_configmap",
    ): "of the kinds that a node is sent by itself, kubectl's last-applied copy stays "
    "in the cloud: what a manifest no longer says is not removed",
}
"""(place, feature): what is not as it should be, and why. Its tests are expected to fail, and fail when they pass."""


class Cell(NamedTuple):
    """One test."""

    place: str
    client: str
    feature: str

    @property
    def is_refused(self) -> bool:
        """Whether the place refuses this for want of the cloud."""
        return self.place in (OFFLINE, RESTARTED) and FEATURES[self.feature].offline is Offline.REFUSED

    @property
    def id(self) -> str:
        return f"{self.place}-{self.client}-{self.feature}"


ONCE_REFUSED = "create"
"""After a restart one refusal stands for all: what refuses them has no memory."""


def is_tested(cell: Cell) -> bool:
    """Whether there is such a test."""
    if cell.client in WITHOUT.get(cell.feature, {}):
        return False
    return cell.place != RESTARTED or not cell.is_refused or cell.feature == ONCE_REFUSED


def cells(*places: str) -> list[Cell]:
    """What is tested, place after place."""
    every = [Cell(place, client, feature) for place in places for client in CLIENTS for feature in FEATURES]
    return [cell for cell in every if is_tested(cell)]


def tables() -> str:
    """The tables of docs/conformance.md."""
    parts: list[str] = []
    notes: dict[str, int] = {}
    for title, features in SECTIONS.items():
        clients = KUBECTLS if features is COMMANDS else CLIENTS
        lines = [f"| {title} | {' | '.join(clients)} |", f"|---|{'---|' * len(clients)}"]
        for feature in features:
            row = [_cell(feature, client, notes) for client in clients]
            lines.append(f"| {feature.title} | {' | '.join(row)} |")
        parts.append("\n".join(lines))
    parts.append("\n".join(f"{number}. {reason}" for reason, number in notes.items()))
    return "\n\n".join(parts)


def _cell(feature: Feature, client: str, notes: dict[str, int]) -> str:
    """Per place, in the order of PLACES: what happens; or the number of the reason why it is not asked."""
    reason = WITHOUT.get(feature.name, {}).get(client)
    if reason is not None:
        return f"– <sup>{notes.setdefault(reason, len(notes) + 1)}</sup>"
    marks: list[str] = []
    for place in PLACES:
        cell = Cell(place, client, feature.name)
        if (gap := GAPS.get((place, feature.name))) is not None:
            marks.append(f"✗<sup>{notes.setdefault(gap, len(notes) + 1)}</sup>")
            continue
        marks.append("·" if not is_tested(cell) else (Offline.REFUSED if cell.is_refused else Offline.WORKS).value)
    return " ".join(marks)


if __name__ == "__main__":
    print(tables())
