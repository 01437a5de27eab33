"""
The rules of the house that no linter knows, read from the sources themselves.

Who may import whom is import-linter's business (pyproject.toml); this file checks what a module may be made of, and
that nothing lies about unused, untested or undescribed. Each failure says what to do about it.
"""

import ast
import fnmatch
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.house import (
    COMPOSITION_ROOTS,
    MODULES,
    PYPROJECT,
    ROOT,
    Module,
    calls,
    dotted,
    existing_roots,
    fail_with,
    first_party,
    modules_under,
)

STARTED_BY_NAME = frozenset(
    {
        *COMPOSITION_ROOTS,
        "apiserver.dev",
        "componentbase.programs",
        "edgecore.__main__",
        "mappers.runtime",
        "demo.__main__",
    }
)
"""What a person or a console script starts, so that nothing has to import it."""

CORES = (
    "apimachinery.*",
    "apiserver.attributes",
    "apiserver.builtins",
    "apiserver.columns",
    "apiserver.definitions",
    "apiserver.discovery",
    "apiserver.fieldsets",
    "apiserver.jsonpath",
    "apiserver.kinds",
    "apiserver.managed",
    "apiserver.messages",
    "apiserver.nodes",
    "apiserver.openapi",
    "apiserver.openapi_schemas",
    "apiserver.protobuf",
    "apiserver.protobuf_fields",
    "apiserver.pruning",
    "apiserver.rbac",
    "apiserver.requests",
    "apiserver.selection",
    "apiserver.strategic",
    "apiserver.tables",
    "apiserver.tokens",
    "apiserver.typed",
    "apiserver.users",
    "apiserver.versions",
    "cloudhub.agenda",
    "cloudhub.apiwire",
    "cloudhub.backoff",
    "cloudhub.buckets",
    "cloudhub.keyturns",
    "cloudhub.delta",
    "cloudhub.fences",
    "cloudhub.horizon",
    "cloudhub.hubstatus",
    "cloudhub.desires",
    "cloudhub.devices",
    "cloudhub.closed",
    "cloudhub.conflation",
    "cloudhub.identities",
    "cloudhub.interests",
    "cloudhub.largeobjects",
    "cloudhub.lobby",
    "cloudhub.nodecalls",
    "cloudhub.passing",
    "cloudhub.outbox",
    "cloudhub.packorders",
    "cloudhub.pace",
    "cloudhub.patches",
    "cloudhub.placement",
    "cloudhub.presence",
    "cloudhub.projection",
    "cloudhub.pushes",
    "cloudhub.reading",
    "cloudhub.ledgers",
    "cloudhub.reports",
    "cloudhub.reportvalues",
    "cloudhub.rests",
    "cloudhub.session",
    "cloudhub.sessions",
    "cloudhub.standings",
    "cloudhub.transfers",
    "cloudhub.turns",
    "cloudhub.together",
    "cloudhub.wholes",
    "cloudhub.wires",
    "devicetwin.broker.access",
    "devicetwin.broker.config",
    "devicetwin.broker.core",
    "devicetwin.broker.packets",
    "devicetwin.broker.retained",
    "devicetwin.broker.session",
    "devicetwin.broker.topics",
    "componentbase.certificates",
    "componentbase.jsonbytes",
    "componentbase.lately",
    "devicetwin.claims",
    "devicetwin.configuration",
    "devicetwin.declaration",
    "devicetwin.messages",
    "devicetwin.mqttclient",
    "devicetwin.payloads",
    "devicetwin.reconcile",
    "devicetwin.recorder",
    "devicetwin.silence",
    "devicetwin.steps",
    "devicetwin.topics",
    "devicetwin.twin",
    "devicetwin.wire",
    "edgehub.backlog",
    "edgehub.lifetimes",
    "edgehub.redial",
    "edgehub.arrivals",
    "edgehub.session",
    "link.callcodec",
    "link.codec",
    "link.delivery",
    "link.errors",
    "link.exchange",
    "link.fields",
    "link.frames",
    "link.nesting",
    "link.outstanding",
    "link.packing",
    "link.pathmtu",
    "link.peer",
    "link.pump",
    "link.pushcodec",
    "link.receiver",
    "link.reportcodec",
    "link.sender",
    "link.sessioncodec",
    "link.tags",
    "link.transfers",
    "mappers.availability",
    "mappers.batches",
    "mappers.dialogue",
    "mappers.membership",
    "mappers.onewire",
    "mappers.payloads",
    "mappers.points",
    "mappers.polling",
    "mappers.pushmethod",
    "mappers.registers",
    "mappers.settings",
    "mappers.sink",
    "mappers.thermostat",
    "mappers.values",
    "mappers.variants",
    "mappers.words",
    "metamanager.intake",
)
"""Pure modules: time and randomness are arguments, effects are returned. A pattern is as fnmatch reads it."""

IMPURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uuid",
    }
)
CLOCKS = frozenset({"now", "today", "utcnow"})

LOOSE_TASKS: Mapping[str, str] = {
    "asyncio.create_task": "use a TaskGroup, so that the task has an owner",
    "asyncio.ensure_future": "use a TaskGroup, so that the task has an owner",
    "asyncio.gather": "use a TaskGroup, which cancels the others when one fails",
    "asyncio.wait_for": "use asyncio.timeout",
}

MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:work|root|opt/kc|tmp/team|Users)/[\w.-]")
TEXTS = frozenset(
    {
        ".cfg",
        ".css",
        ".html",
        ".ini",
        ".js",
        ".json",
        ".md",
        ".mk",
        ".py",
        ".sh",
        ".sql",
        ".toml",
        ".txt",
        ".yaml",
        ".yml",
    }
)
NOT_OURS = frozenset({".git", ".venv", ".tools", ".hypothesis", "build", "dist"})


# ---- cores


def is_core(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in CORES)


def impurities(module: Module) -> Iterator[str]:
    for name, line in module.imports.items():
        if any(name == banned or name.startswith(banned + ".") for banned in IMPURE):
            yield f"{module.at(line)}: imports {name}"
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in CLOCKS
            and dotted(node).split(".")[-2:-1]
            in (
                ["datetime"],
                ["date"],
            )
        ):
            yield f"{module.at(node.lineno)}: reads the clock with {dotted(node)}"
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield f"{module.at(node.lineno)}: is asynchronous"
        if isinstance(node, ast.Call) and dotted(node.func) in ("open", "print", "input"):
            yield f"{module.at(node.lineno)}: calls {dotted(node.func)}()"


def test_cores_are_pure() -> None:
    cores = [module for name, module in MODULES.items() if is_core(name)]
    assert cores, "no core was found: has a package moved?"
    fail_with(
        (problem for module in cores for problem in impurities(module)),
        "A core takes time and randomness as arguments and returns its effects. Move this to the shell:",
    )


def test_cores_import_cores_only() -> None:
    problems = [
        f"{module.at(line)}: {module.name} imports {imported}"
        for module in MODULES.values()
        if is_core(module.name)
        for imported, line in first_party(module).items()
        if not is_core(imported) and MODULES[imported].has_code
    ]
    fail_with(problems, "A core may use cores only. Where the imported module is pure, add it to CORES in this file:")


def test_checks_of_purity_find_what_they_look_for(tmp_path: Path) -> None:
    path = ROOT / "link" / "sample.py"  # only a name: nothing is written there
    source = "from datetime import datetime\nimport time, os.path\ndatetime.now()\nasync def f(): open('x')\n"
    module = Module("link.sample", path)
    vars(module)["tree"] = ast.parse(source)
    found = sorted(problem.partition(": ")[2] for problem in impurities(module))
    assert found == [
        "calls open()",
        "imports os.path",
        "imports time",
        "is asynchronous",
        "reads the clock with datetime.now",
    ]


# ---- libraries


def home_contracts() -> dict[str, frozenset[str]]:
    """Library to the modules (patterns) that may import it, as the home-* contracts in pyproject.toml say."""
    homes: dict[str, set[str]] = {}
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]:
        if contract["id"].startswith("home-"):
            for library in contract["forbidden_modules"]:
                homes.setdefault(library, set())
            for allowed in contract.get("ignore_imports", ()):
                importer, _, library = allowed.partition(" -> ")
                homes[library].add(importer)
    return {library: frozenset(importers) for library, importers in homes.items()}


def test_every_library_has_a_home() -> None:
    homes = home_contracts()
    problems = [
        f"{module.at(line)}: {library}"
        for module in MODULES.values()
        for library, line in module.libraries.items()
        if library not in homes
    ]
    fail_with(problems, "A new library needs a home-* contract under tool.importlinter in pyproject.toml:")


def test_homes_exist() -> None:
    used = {library for module in MODULES.values() for library in module.libraries}
    problems = [
        f"{library}: {home} is not a module"
        for library, homes in home_contracts().items()
        for home in homes
        if library in used and not any(fnmatch.fnmatchcase(name, home.replace("**", "*")) for name in MODULES)
    ]
    fail_with(problems, "A home-* contract in pyproject.toml names a module that does not exist:")


def test_composition_roots_leave_libraries_to_their_homes() -> None:
    """import-linter cannot read a single module, so that such a root is read here."""
    problems = [
        f"{module.at(line)}: imports {library}"
        for module in existing_roots()
        for library, line in module.libraries.items()
        if (module.name, library) != ("cloudcore", "uvloop")
    ]
    fail_with(problems, "A composition root joins our own objects and nothing else:")


# ---- tasks and logs


def loose_tasks(module: Module) -> Iterator[str]:
    for call in calls(module):
        name = dotted(call.func)
        if name in LOOSE_TASKS:
            yield f"{module.at(call.lineno)}: {name}(): {LOOSE_TASKS[name]}"
        keywords = {keyword.arg for keyword in call.keywords}
        if isinstance(call.func, ast.Attribute) and call.func.attr == "create_task" and "name" not in keywords:
            yield f"{module.at(call.lineno)}: create_task() without name=: name it for what it serves"


def test_every_task_has_an_owner_and_a_name() -> None:
    fail_with(
        (problem for module in MODULES.values() for problem in loose_tasks(module)),
        "What runs beside something else belongs to a TaskGroup:",
    )


def test_checks_of_tasks_find_what_they_look_for() -> None:
    source = "asyncio.gather()\ngroup.create_task(f())\n"
    module = Module("link.sample", ROOT / "link" / "sample.py")
    vars(module)["tree"] = ast.parse(source)
    assert len(list(loose_tasks(module))) == 2


LOG_METHODS = frozenset({"critical", "debug", "error", "exception", "info", "warning"})


def test_log_messages_are_constants() -> None:
    problems = [
        f"{module.at(call.lineno)}"
        for module in MODULES.values()
        for call in calls(module)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in LOG_METHODS
        and dotted(call.func.value) in ("logger", "self.logger", "self._logger")
        and not (len(call.args) == 1 and isinstance(call.args[0], ast.Constant))
    ]
    fail_with(problems, 'The message is a constant and the facts are fields: logger.info("...", extra={...}):')


# ---- nothing lies about


def test_every_module_says_why_it_exists() -> None:
    problems = [
        str(module.path.relative_to(ROOT))
        for module in MODULES.values()
        if not ast.get_docstring(module.tree) and (module.tree.body or not module.is_package)
    ]
    fail_with(problems, "A module begins with why it exists and what must stay true:")


def test_every_module_is_imported() -> None:
    used = set(STARTED_BY_NAME)
    for module in MODULES.values():
        used |= {name for name in first_party(module) if name != module.name}
        # A driver or transport that is loaded by name stands as a text somewhere.
        used |= {
            node.value for node in ast.walk(module.tree) if isinstance(node, ast.Constant) and node.value in MODULES
        }
    problems = [
        str(module.path.relative_to(ROOT))
        for name, module in MODULES.items()
        if name not in used and not module.is_package
    ]
    fail_with(problems, "Nobody imports these; tests do not count:")


def possible_tests(name: str) -> list[str]:
    """Names of the file that tests a.b.c: test_a_b_c, test_b_c or test_a_c, and test_c where that is nobody else's."""
    parts = [part.removeprefix("_") for part in name.split(".") if part != "__main__"]
    prefixed = ["_".join(parts[i:]) for i in range(len(parts))] + [f"{parts[0]}_{parts[-1]}"]
    return [f"test_{stem}.py" for stem in prefixed]


def test_every_module_has_its_test() -> None:
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    by_file: dict[str, list[str]] = defaultdict(list)
    problems = []
    for name, module in MODULES.items():
        if module.is_package and not module.has_code:
            continue
        found = next((candidate for candidate in possible_tests(name) if candidate in files), None)
        if found is None:
            problems.append(f"{module.path.relative_to(ROOT)}: no tests/{possible_tests(name)[0]} or shorter")
        else:
            by_file[found].append(name)
    problems += [
        f"tests/{file}: could be the test of {' and of '.join(names)}: put the package in front"
        for file, names in by_file.items()
        if len(names) > 1
    ]
    fail_with(problems, "One test file per module, named for it:")


def test_every_frame_is_in_the_protocol() -> None:
    protocol = ROOT / "docs" / "protocol.md"
    assert protocol.exists(), "docs/protocol.md describes the link for whoever writes another peer; it is missing"
    text = protocol.read_text()
    problems = [name for name in frame_names() if not re.search(rf"\b{name}\b", text)]
    fail_with(problems, "Describe these frames of link/frames.py in docs/protocol.md:")


def test_tests_that_documents_name_exist() -> None:
    """A promise that names a test which is not there is kept by nobody."""
    paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")]
    functions = {
        node.name
        for module in modules_under("tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = set()
    problems = []
    for document in sorted(path for path in our_texts() if path.suffix == ".md"):
        for name in re.findall(r"`(test_\w+|tests/[\w/*.]+)`", document.read_text()):
            named.add(name)
            is_there = fnmatch.filter(paths, f"{name}*") if name.startswith("tests/") else name in functions
            if not is_there:
                problems.append(f"{document.relative_to(ROOT)}: {name}")
    assert len(named) > 30, "docs/guarantees.md names what tries to break each promise"
    fail_with(problems, "No such test; was it renamed?")


def frame_names() -> list[str]:
    """The members of the union called Frame."""
    for node in MODULES["link.frames"].tree.body:
        if isinstance(node, ast.Assign) and [dotted(target) for target in node.targets] == ["Frame"]:
            return [name.id for name in ast.walk(node.value) if isinstance(name, ast.Name)]
    pytest.fail("link/frames.py has no union called Frame", pytrace=False)


# ---- texts


def our_texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if NOT_OURS & set(parts) or any(part.endswith((".egg-info", "_cache", "__pycache__")) for part in parts):
            continue
        if path.is_file() and (path.suffix in TEXTS or path.name in ("Makefile", "run") or parts[0] == "scripts"):
            yield path


def test_no_machine_paths() -> None:
    me = Path(__file__).resolve()
    problems = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in our_texts()
        if path != me
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    fail_with(problems, "A path of somebody's machine helps nobody else:")


def test_todo_carries_an_issue_number() -> None:
    me = Path(__file__).resolve()
    problems = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in our_texts()
        if path != me and path.suffix == ".py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"#.*\b(TODO|FIXME|XXX)\b", line) and not re.search(r"#\d+", line)
    ]
    fail_with(problems, "A TODO without an issue is a wish; write its number, as in `TODO (#12)`:")
