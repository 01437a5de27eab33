"""
No shell, no eval, no pickle, no yaml.load, no text built into a command: what ruff's bandit rules (S) do not see.

They know calls by the name they are written with, take a variable for a list, and let every program be started. Here
names are followed through imports, a command is a list that is written where it is run, and who starts programs is
known.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping

import pytest

from tests.house import MODULES, PYPROJECT, ROOT, Module, calls, dotted, fail_with, modules_under

BANNED_IMPORTS = frozenset({"dill", "jsonpickle", "joblib", "marshal", "pickle", "_pickle", "pty", "shelve"})
BANNED_CALLS: Mapping[str, str] = {
    "eval": "parse what you need",
    "exec": "parse what you need",
    "compile": "parse what you need",
    "__import__": "use importlib.import_module with a name from our own code",
    "builtins.eval": "parse what you need",
    "builtins.exec": "parse what you need",
    "builtins.compile": "parse what you need",
    "asyncio.create_subprocess_shell": "use asyncio.create_subprocess_exec",
    "os.popen": "use subprocess with a list",
    "os.system": "use subprocess with a list",
    "subprocess.getoutput": "use subprocess.run with a list",
    "subprocess.getstatusoutput": "use subprocess.run with a list",
    "yaml.full_load": "use yaml.safe_load, or better componentbase.config",
    "yaml.full_load_all": "use yaml.safe_load_all, or better componentbase.config",
    "yaml.load": "use yaml.safe_load, or better componentbase.config",
    "yaml.load_all": "use yaml.safe_load_all, or better componentbase.config",
    "yaml.unsafe_load": "use yaml.safe_load, or better componentbase.config",
    "yaml.unsafe_load_all": "use yaml.safe_load_all, or better componentbase.config",
}
UNSAFE_NAMES = frozenset({"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"})
"""Of PyYAML: what makes objects of any class that a document names."""
STARTS: Mapping[str, frozenset[str]] = {
    "subprocess": frozenset({"run", "Popen", "call", "check_call", "check_output"}),
    "asyncio": frozenset({"create_subprocess_exec"}),
    "os": frozenset(
        {"execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp"}
    ),
}
SHELLS = frozenset({"bash", "cmd", "csh", "dash", "ksh", "sh", "zsh"})
STARTERS = frozenset({"cloudhub.execplugin", "cloudhub.supervisor", "demo.children", "demo.leash", "edgehub.renewal"})
"""
Who may start a program: the credential plugin that a person's kubeconfig names, as kubectl does; cloudcore's workers,
which are cloudcore; an edge that renews its certificates, which is edgecore; and the demo. Nothing that comes over the
link, MQTT or an API is ever run.
"""

WORDS = re.compile(
    r"\b(?:__import__|_?pickle|builtins|compile|dill|eval|exec\w*|joblib|jsonpickle|marshal|popen|pty|shell|shelve|spawn\w*"
    r"|subprocess|system|yaml|create_subprocess_\w+)\b"
)
"""A module without any of them has nothing to be found in; there are six hundred."""
EVERYTHING = [*MODULES.values(), *modules_under("tests", "examples", "benchmarks", "scripts")]


def names_of(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """What a name stands for: `from os import system as s` makes s os.system."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def real_name(node: ast.expr, names: Mapping[str, str]) -> str:
    first, dot, rest = dotted(node).partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def starts_program(name: str) -> bool:
    library, _, function = name.partition(".")
    return function in STARTS.get(library, ())


def is_built(argument: ast.expr) -> bool:
    """Whether this is a text that is put together, split, or one alone, and no list."""
    match argument:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(op=ast.Mod()):
            return True
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return is_built(left) or is_built(right)
        case ast.Call(func=ast.Attribute(attr="format" | "join" | "split" | "rsplit")):
            return True
        case _:
            return False


def runs_shell(call: ast.Call) -> bool:
    """["sh", "-c", ...], or the same as arguments."""
    parts = call.args[0].elts if call.args and isinstance(call.args[0], ast.List | ast.Tuple) else call.args
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    return any(isinstance(word, str) and word.rpartition("/")[2] in SHELLS for word in words[:1]) and "-c" in words


def banned_ways(module: Module) -> Iterator[str]:
    nodes = list(ast.walk(module.tree))
    names = names_of(nodes)
    banned = {name.partition(".")[0]: line for name, line in module.imports.items()}
    for name in sorted(BANNED_IMPORTS & banned.keys()):
        yield f"{module.at(banned[name])}: imports {name}: use JSON or msgpack, and subprocess with a list"
    for name, line in module.imports.items():
        if name.startswith("yaml.") and name.removeprefix("yaml.") in UNSAFE_NAMES:
            yield f"{module.at(line)}: imports {name}: use yaml.SafeLoader"
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in UNSAFE_NAMES and real_name(node.value, names) == "yaml":
            yield f"{module.at(node.lineno)}: yaml.{node.attr}: use yaml.SafeLoader"
    for call in nodes:
        if not isinstance(call, ast.Call):
            continue
        name = real_name(call.func, names)
        if name in BANNED_CALLS:
            yield f"{module.at(call.lineno)}: {name}(): {BANNED_CALLS[name]}"
        if name.startswith("os.spawn"):
            yield f"{module.at(call.lineno)}: {name}(): use subprocess with a list"
        for keyword in call.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{module.at(call.lineno)}: shell=: give subprocess a list"
        if starts_program(name):
            # create_subprocess_exec takes the words one by one, so that each may be a text.
            one_by_one = name.startswith(("asyncio.", "os."))
            if not one_by_one and call.args and is_built(call.args[0]):
                yield f"{module.at(call.lineno)}: {name}() of a text: a command is a list of its words"
            if runs_shell(call):
                yield f"{module.at(call.lineno)}: {name}() of a shell: run the program itself"


def test_nothing_is_evaluated_unpickled_or_run_by_a_shell() -> None:
    told = [module for module in EVERYTHING if WORDS.search(module.path.read_text())]
    fail_with((problem for module in told for problem in banned_ways(module)), "There is a better way:")


def test_programs_are_started_where_that_is_known() -> None:
    problems = [
        f"{module.at(call.lineno)}: {name}()"
        for module in MODULES.values()
        for names in [names_of(ast.walk(module.tree))]
        for call in calls(module)
        if starts_program(name := real_name(call.func, names)) and module.name not in STARTERS
    ]
    fail_with(problems, "What runs another program is listed in STARTERS of this file, with the reason:")
    used = {module.name for module in MODULES.values() if module.name in STARTERS}
    assert used == STARTERS, "a module in STARTERS is gone"


SAMPLES = (
    "import pickle",
    "from marshal import loads",
    "eval('1')",
    "import builtins as b\nb.exec(text)",
    "from os import system as s\ns('ls')",
    "import subprocess as sp\nsp.getoutput('ls')",
    "run(command, shell=True)",
    "run(command, shell=wanted)",
    "import subprocess\nsubprocess.run('ls ' + path)",
    "import subprocess\nsubprocess.run(f'ls {path}')",
    "import subprocess\nsubprocess.run('ls {}'.format(path))",
    "import subprocess\nsubprocess.Popen('ls %s' % path)",
    "import subprocess\nsubprocess.check_output(line.split())",
    "from subprocess import run\nrun(['/bin/sh', '-c', text])",
    "import asyncio\nasyncio.create_subprocess_exec('bash', '-c', text)",
    "import asyncio\nasyncio.create_subprocess_shell(text)",
    "import os\nos.spawnv(0, path, words)",
    "from yaml import load\nload(text)",
    "import yaml as y\ny.load(text, y.SafeLoader)",
    "import yaml\nyaml.compose(text, yaml.Loader)",
    "from yaml import UnsafeLoader",
)


@pytest.mark.parametrize("source", SAMPLES)
def test_the_check_finds_what_it_looks_for(source: str) -> None:
    assert WORDS.search(source)
    module = Module("link.sample", ROOT / "link" / "sample.py")  # only a name: nothing is there
    vars(module)["tree"] = ast.parse(source)
    assert len(list(banned_ways(module))) == 1


def test_the_check_lets_good_ways_pass() -> None:
    module = Module("link.sample", ROOT / "link" / "sample.py")
    vars(module)["tree"] = ast.parse(
        "import subprocess, yaml, re, asyncio\nsubprocess.run(['ls', f'{path}'], shell=False)\nyaml.safe_load(text)\n"
        "yaml.compose(text, yaml.SafeLoader)\nre.compile('x')\nasyncio.create_subprocess_exec('ls', f'{path}')\n"
        "subprocess.run([sys.executable, '-c', code])\n"
    )
    assert list(banned_ways(module)) == []


ALLOWED_OUTSIDE_TESTS = frozenset({"S101", "S603", "S311", "S607"})
"""Bandit rules that product code may switch off for whole directories; each has its reason in pyproject.toml."""


def test_ruff_keeps_its_security_rules_on() -> None:
    lint = PYPROJECT["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    off = set(lint["ignore"])
    for pattern, rules in lint["per-file-ignores"].items():
        if not pattern.startswith("tests"):
            off |= set(rules)
    assert {rule for rule in off if rule.startswith("S") and rule[1:].isdigit()} <= ALLOWED_OUTSIDE_TESTS
