"""
The sources as the tests of the house read them: modules, what they import, and how a failure is told.

Everything is read with ast and nothing is imported, so that a module that cannot be imported is still judged.
"""

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: tuple[str, ...] = tuple(PYPROJECT["tool"]["importlinter"]["root_packages"])

COMPOSITION_ROOTS = ("cloudcore",)
"""Those that are single modules, which import-linter does not read; edgecore is a package as any other."""


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(), str(self.path))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def has_code(self) -> bool:
        """More than a docstring."""
        return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in self.tree.body)

    @cached_property
    def imports(self) -> dict[str, int]:
        """Dotted names imported anywhere in the module, also inside functions: name to line."""
        found: dict[str, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name: node.lineno for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                package = self.name if self.is_package else self.name.rpartition(".")[0]
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                found[origin] = node.lineno
                found |= {f"{origin}.{alias.name}": node.lineno for alias in node.names}
        return found

    @property
    def libraries(self) -> dict[str, int]:
        """Top-level names of third-party packages it imports."""
        tops = {name.partition(".")[0]: line for name, line in self.imports.items()}
        ours = {*PACKAGES, *COMPOSITION_ROOTS, "tests"}
        return {top: line for top, line in tops.items() if top not in sys.stdlib_module_names and top not in ours}

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def modules_under(*directories: str) -> Iterator[Module]:
    for directory in directories:
        for path in sorted((ROOT / directory).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


def existing_roots() -> Iterator[Module]:
    for name in COMPOSITION_ROOTS:
        if (ROOT / f"{name}.py").exists():
            yield Module(name, ROOT / f"{name}.py")


MODULES = {module.name: module for module in [*modules_under(*PACKAGES), *existing_roots()]}


def first_party(module: Module) -> dict[str, int]:
    """Our modules it imports: `from a import b` is a.b where that is a module, and a in any case."""
    return {name: line for name, line in module.imports.items() if name in MODULES}


def dotted(node: ast.expr) -> str:
    """`a.b.c` for such an expression, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def fail_with(problems: Iterable[str], advice: str) -> None:
    listed = "\n  ".join(sorted(problems))
    if listed:
        pytest.fail(f"{advice}\n  {listed}", pytrace=False)
