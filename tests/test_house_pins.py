"""
What an installation consists of: pinned to the last package, and nothing that its process does not import.

Read from pyproject.toml and from what is installed in this environment, for each Python that is supported.
"""

import fnmatch
import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house import MODULES, PYPROJECT, ROOT, fail_with, first_party

PROCESSES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "edge": (("edgecore.__main__",), ("quic",)),
    "cloud": (("cloudcore",), ("quic",)),
    "mapper": (("mappers.*",), tuple(f"mapper-{each}" for each in ("http", "modbus", "opcua", "redis", "mysql"))),
    "mapper-http": (
        ("mappers.runtime", "mappers.http"),
        ("mapper-modbus", "mapper-opcua", "mapper-redis", "mapper-mysql"),
    ),
    "mapper-modbus": (
        ("mappers.runtime", "mappers.modbus"),
        ("mapper-http", "mapper-opcua", "mapper-redis", "mapper-mysql"),
    ),
    "mapper-opcua": (
        ("mappers.runtime", "mappers.opcua"),
        ("mapper-http", "mapper-modbus", "mapper-redis", "mapper-mysql"),
    ),
    "apiserver": (("apiserver.dev",), ()),
}
"""Extra: the modules its process starts from (or loads by name), and the extras it can use but does not need."""

PYTHONS = ("3.11", "3.12", "3.13")

EXTRAS: dict[str, list[Requirement]] = {
    extra: [Requirement(text) for text in texts]
    for extra, texts in PYPROJECT["project"]["optional-dependencies"].items()
}
SELF = canonicalize_name(PYPROJECT["project"]["name"])


def environment(python: str, extra: str = "") -> dict[str, str]:
    """What markers are evaluated against: this machine with another Python."""
    values = {key: str(value) for key, value in default_environment().items()}
    return values | {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}


def applies(requirement: Requirement, python: str, extras: Iterable[str] = ("",)) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate(environment(python, extra)) for extra in extras)


def pins(extra: str, python: str) -> dict[str, Requirement]:
    """What an extra asks for on one Python, by canonical name, extras of our own followed."""
    found: dict[str, Requirement] = {}
    for requirement in EXTRAS[extra]:
        if canonicalize_name(requirement.name) == SELF:
            for inner in requirement.extras:
                found |= pins(inner, python)
        elif applies(requirement, python):
            found[canonicalize_name(requirement.name)] = requirement
    return found


def closure(names: Mapping[str, Iterable[str]], python: str) -> dict[str, str]:
    """What packages (name to extras) bring with them, themselves included: name to who asked for it."""
    asked: dict[str, str] = dict.fromkeys(names, "pyproject.toml")
    waiting = [(name, frozenset(extras)) for name, extras in names.items()]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        for text in installed(name).requires or []:
            requirement = Requirement(text)
            if not applies(requirement, python, extras or {""}):
                continue
            inner = canonicalize_name(requirement.name)
            asked.setdefault(inner, name)
            step = (inner, frozenset(requirement.extras))
            if step not in seen:
                seen.add(step)
                waiting.append(step)
    return asked


def installed(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.fail(f"{name} is required but not installed: pip install -e '.[all,dev]'", pytrace=False)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_pinned_to_the_last_package(extra: str, python: str) -> None:
    pinned = pins(extra, python)
    needed = closure({name: requirement.extras for name, requirement in pinned.items()}, python)
    problems = [
        f"{name}=={installed(name).version}  (required by {who})" for name, who in needed.items() if name not in pinned
    ]
    fail_with(problems, f"Hold these in the extra `{extra}` of pyproject.toml:")
    loose = [
        str(requirement) for requirement in pinned.values() if not re.fullmatch(r"==[^*,]+", str(requirement.specifier))
    ]
    fail_with(loose, f"Pin these in the extra `{extra}` with ==:")
    differing = [
        f"{requirement}: {installed(name).version} is installed"
        for name, requirement in pinned.items()
        if str(requirement.specifier) != f"=={installed(name).version}"
    ]
    fail_with(differing, f"The extra `{extra}` and this environment differ; install again, or mend the pin:")


def test_extras_agree_on_versions() -> None:
    versions: dict[str, set[str]] = defaultdict(set)
    for requirements in EXTRAS.values():
        for requirement in requirements:
            versions[canonicalize_name(requirement.name)].add(str(requirement.specifier))
    fail_with(
        (f"{name}: {', '.join(sorted(found))}" for name, found in versions.items() if len(found) > 1),
        "Two extras of pyproject.toml want different versions:",
    )


def test_build_is_pinned() -> None:
    build = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    fail_with(
        (str(requirement) for requirement in build if not re.fullmatch(r"==[^*,]+", str(requirement.specifier))),
        "Pin what builds the package:",
    )
    assert PYPROJECT["project"]["dependencies"] == [], "each process names what it needs in its extra"


LOCKED = [extra for extra in EXTRAS if extra not in ("all", "dev")]


def locked(extra: str) -> dict[Requirement, int]:
    """What requirements/EXTRA.txt asks for, and how many hashes it has of each."""
    path = ROOT / "requirements" / f"{extra}.txt"
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing: make lock", pytrace=False)
    entries = re.split(r"\n(?=\S)", path.read_text().strip())
    return {
        Requirement(entry.partition("--hash")[0].replace("\\", "").strip()): len(re.findall(HASH, entry))
        for entry in entries
    }


HASH = r"--hash=sha256:[0-9a-f]{64}\b"


@pytest.mark.parametrize("extra", LOCKED)
def test_a_release_installs_what_is_pinned_by_hash(extra: str) -> None:
    found = locked(extra)
    assert all(found.values()), [str(each) for each, count in found.items() if not count]
    for python in PYTHONS:
        versions = {str(canonicalize_name(each.name)): str(each.specifier) for each in found if applies(each, python)}
        pinned = {str(name): str(each.specifier) for name, each in pins(extra, python).items()}
        fail_with(
            (f"{name}: {text} is pinned" for name, text in pinned.items() if versions.get(name) != text),
            f"requirements/{extra}.txt is not of this pyproject.toml (Python {python}): make lock",
        )
        fail_with(versions.keys() - pinned.keys(), f"requirements/{extra}.txt has more than is pinned: make lock")


def test_the_lock_script_knows_every_extra() -> None:
    listed = re.search(r"^extras=\((.*)\)$", (ROOT / "scripts" / "release").read_text(), re.MULTILINE)
    assert listed is not None
    assert sorted(listed[1].split()) == sorted(LOCKED)


def libraries_of(patterns: Iterable[str]) -> dict[str, str]:
    """Third-party packages that a process can come to import: canonical distribution name to the importing place."""
    waiting = [name for name in MODULES if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    assert waiting, f"no module is called {', '.join(patterns)}"
    seen = set(waiting)
    found: dict[str, str] = {}
    by_import = importlib.metadata.packages_distributions()
    while waiting:
        module = MODULES[waiting.pop()]
        for library, line in module.libraries.items():
            for distribution in by_import.get(library, [library]):
                found.setdefault(canonicalize_name(distribution), module.at(line))
        for name in first_party(module):
            parents = {name.rsplit(".", count)[0] for count in range(name.count(".") + 1)}  # a.b.c runs a and a.b
            waiting += sorted(parents - seen)
            seen |= parents
    return found


@pytest.mark.parametrize("extra", PROCESSES)
def test_extra_has_what_its_process_imports_and_nothing_else(extra: str) -> None:
    """So that an edge installs no cloud dependency, and the reverse."""
    patterns, optional = PROCESSES[extra]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    imported = {
        name: place
        for name, place in libraries_of(patterns).items()
        if not any(name in pins(other, python) for other in optional if name not in pins(extra, python))
    }
    pinned = pins(extra, python)
    fail_with(
        (f"{name}  ({place})" for name, place in imported.items() if name not in pinned),
        f"The extra `{extra}` lacks what its process imports:",
    )
    needed = closure({name: pinned[name].extras for name in imported if name in pinned}, python)
    fail_with(set(pinned) - set(needed), f"The extra `{extra}` installs what its process never imports:")
