"""
What a node has to install, and that neither side installs the other's libraries.

Each extra goes into a fresh environment, from a copy of this tree, so that nothing is built inside it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parent.parent
CLOUD_ONLY = frozenset({"httpx2", "httpcore2", "lightkube", "lightkube-models", "uvloop", "h2", "msgspec", "anyio"})
EDGE_ONLY = frozenset({"orjson"})
TOOLS = frozenset({"pip", "setuptools", "wheel"})


def environment(directory: Path, extra: str) -> Path:
    """A fresh environment with `fairlead[extra]`; where its programs are."""
    source = directory / "source"
    if not source.exists():
        skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results")
        shutil.copytree(ROOT, source, ignore=skipped)
    made = directory / extra
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{source}[{extra}]"], check=True)
    return made / "bin"


def measure(programs: Path, extra: str) -> Iterator[list[Figure]]:
    """Size and number of distributions; fails where a library of the other side is among them."""
    lister = "import importlib.metadata, json; print(json.dumps([d.name for d in importlib.metadata.distributions()]))"
    answer = subprocess.run([str(programs / "python"), "-c", lister], check=True, capture_output=True, text=True)
    names = sorted({name.lower().replace("_", "-") for name in json.loads(answer.stdout)} - TOOLS)
    strangers = set(names) & (CLOUD_ONLY if extra == "edge" else EDGE_ONLY if extra == "cloud" else frozenset())
    assert not strangers, f"fairlead[{extra}] installs {strangers}"
    packages = next((programs.parent / "lib").glob("python3*/site-packages"))
    skipped = tuple(packages / name for name in ("pip", "setuptools", "_distutils_hack", "pkg_resources"))
    files = [
        path
        for path in packages.rglob("*")
        if path.is_file()
        and not any(path.is_relative_to(each) for each in skipped)
        and not _is_of_tools(path, packages)
    ]
    code = sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)
    everything = sum(path.stat().st_size for path in files)
    yield [
        Figure(f"install of fairlead[{extra}]", "MB", [everything / 2**20], note="bytecode included, without pip"),
        Figure(f"install of fairlead[{extra}], without bytecode", "MB", [code / 2**20]),
        Figure(f"distributions in fairlead[{extra}]", "", [float(len(names))], note=" ".join(names)),
    ]


def _is_of_tools(path: Path, packages: Path) -> bool:
    first = path.relative_to(packages).parts[0].lower()
    return any(first.startswith(f"{tool}-") for tool in TOOLS) or first == "distutils-precedence.pth"
