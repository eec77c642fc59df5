"""The one-way road, held over the syntax tree: who imports whom, and what is never called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import sandglass

SOURCE = Path(sandglass.__file__).parent

TIERS = (
    ("errors",),
    ("conversion",),
    ("core",),
    ("rng",),
    ("registry",),
    ("nets", "schedules"),
    ("distributions",),
    ("samplers", "quantisers"),
    ("models",),
    ("runs",),
    ("data",),
    ("engine",),
    ("running",),
    ("metrics",),
    ("tasks",),
    ("diagnosis",),
    ("census",),
    ("reports",),
    ("comparing", "exports", "sweeps"),
    ("recipes",),
    ("api",),
    ("estimator", "testing"),
    ("app",),
    ("__main__",),
)
TIER = {room: number for number, rooms in enumerate(TIERS) for room in rooms}
VAGUE = {"utils", "util", "misc", "helpers", "common"}
DYNAMIC = {
    "",
    "registry.names",
}  # the package's lazy face and discover(): the only importers of a name made at run time

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
UNSAFE_ATTRIBUTES = {"torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "os.system", "os.popen"}
UNSAFE_METHODS = {"extractall"}
UNSAFE_KEYWORDS = {"allow_pickle=True", "shell=True", "weights_only=False"}


@dataclass(frozen=True)
class Import:
    """One import of something of ours: of the module ``target``, or of the name ``name`` in it."""

    line: int
    target: str
    name: str | None


def tree_of(root: Path) -> dict[str, ast.Module]:
    """Every module under the package folder by its name below the package: ``""`` is the package itself."""
    modules = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(file.read_text(), str(file))
    return modules


def is_package(module: str, modules: Mapping[str, object]) -> bool:
    return not module or any(name.startswith(module + ".") for name in modules)


def absolute(module: str, node: ast.ImportFrom, modules: Mapping[str, object]) -> str | None:
    """What ``from ... import`` reads from, below the package; None when it is not ours."""
    if node.level:
        here = module.split(".") if module else []
        up = node.level - is_package(module, modules)
        return ".".join([*here[: len(here) - up], *([node.module] if node.module else [])])
    own = re.fullmatch(r"sandglass(?:\.(.+))?", node.module or "")
    return (own[1] or "") if own else None


def imports(module: str, tree: ast.Module, modules: Mapping[str, object]) -> Iterator[Import]:
    """All imports of ours, wherever they stand, and uses of ``sandglass.<name>``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("sandglass."):
                    yield Import(node.lineno, alias.name.removeprefix("sandglass."), None)
        elif isinstance(node, ast.ImportFrom) and (base := absolute(module, node, modules)) is not None:
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                yield Import(node.lineno, full, None) if full in modules else Import(node.lineno, base, alias.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sandglass":
            yield Import(node.lineno, node.attr, None) if node.attr in modules else Import(node.lineno, "", node.attr)


def room(module: str) -> str:
    return module.split(".")[0]


def of_package(name: str) -> str:
    """The room behind a name of the lazy package."""
    homes = {
        "Spec": "core",
        "Run": "runs",
        "compare": "comparing",
        "export": "exports",
        "inspect": "census",
        "sweep": "sweeps",
    }
    return homes.get(name, "api")


def check_roads(modules: Mapping[str, ast.Module]) -> list[str]:
    """Every import that goes against the tiers."""
    wrong = []
    for module, tree in modules.items():
        own = room(module)
        if own and own not in TIER:
            wrong.append(f"{module}: '{own}' is no room; give it a tier")
        if VAGUE & set(module.split(".")):
            wrong.append(f"{module}: a module's name must say what is in it")
        for found in imports(module, tree, modules):
            if not own or (found.target == "" and found.name in ("__version__", "__file__")):
                continue
            target = found.target if found.target else of_package(found.name or "")
            other, where = room(target), f"{module}:{found.line}"
            if other == own:
                continue
            if other not in TIER:
                wrong.append(f"{where}: imports '{target}', which is no room")
            elif TIER.get(own, -1) <= TIER[other]:
                wrong.append(f"{where}: '{own}' imports '{other}', which does not stand above it")
            private = [part for part in (*target.split("."), found.name or "") if part.startswith("_")]
            if private:
                wrong.append(f"{where}: '{private[0]}' is private to '{other}'")
    return wrong


def check_cycles(modules: Mapping[str, ast.Module]) -> list[str]:
    """Modules that import each other in a ring; the package itself, which is lazy, apart."""
    edges = {
        module: {found.target for found in imports(module, tree, modules) if found.target in modules} - {"", module}
        for module, tree in modules.items()
        if module
    }
    rings, done = [], set[str]()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            rings.append(" -> ".join((*path[path.index(module) :], module)))
        elif module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())
    return rings


def check_unsafe(modules: Mapping[str, ast.Module]) -> list[str]:
    """Code that could run what a file says."""
    wrong = []
    for module, tree in modules.items():
        for node in ast.walk(tree):
            for what in unsafe(node):
                wrong.append(f"{module}:{getattr(node, 'lineno', 0)}: {what}")
            if module not in DYNAMIC and imports_by_name(node, room(module)):
                wrong.append(f"{module}:{getattr(node, 'lineno', 0)}: imports by name")
    return wrong


def imports_by_name(node: ast.AST, own: str) -> bool:
    """Whether it imports a module whose name is made at run time, other than one of its own room."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module")):
        return False
    name = node.args[0] if node.args else None
    first = name.values[0] if isinstance(name, ast.JoinedStr) else name
    fixed = first.value if isinstance(first, ast.Constant) else ""
    return not str(fixed).startswith(f"sandglass.{own}.")


def unsafe(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if room(a.name) in UNSAFE_MODULES)
    elif isinstance(node, ast.ImportFrom) and room(node.module or "") in UNSAFE_MODULES:
        yield str(node.module)
    elif isinstance(node, ast.ImportFrom):
        yield from (a.name for a in node.names if f"{node.module}.{a.name}" in UNSAFE_ATTRIBUTES)
    elif isinstance(node, ast.Attribute) and (ast.unparse(node) in UNSAFE_ATTRIBUTES or node.attr in UNSAFE_METHODS):
        yield ast.unparse(node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
        yield f"{node.func.id}("
    elif isinstance(node, ast.keyword) and ast.unparse(node) in UNSAFE_KEYWORDS:
        yield ast.unparse(node)


CHECKS = {"roads": check_roads, "cycles": check_cycles, "unsafe": check_unsafe}


@pytest.mark.parametrize("check", CHECKS)
def test_the_source_keeps_the_rules(check: str) -> None:
    assert CHECKS[check](tree_of(SOURCE)) == []


def test_there_is_something_to_check() -> None:
    modules = tree_of(SOURCE)
    found = {(module, i.target) for module, tree in modules.items() for i in imports(module, tree, modules)}
    assert ("registry.building", "core") in found
    assert ("models._base_vae", "distributions.rate") in found
    assert ("engine.loop", "data.loading") in found


def test_the_package_itself_loads_nothing_of_ours() -> None:
    eager = [n for n in tree_of(SOURCE)[""].body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(n) for n in eager if "sandglass" in ast.unparse(n)] == []


BAD = {
    "an upward import": ("roads", {"core.py": "import sandglass.api"}, "does not stand above"),
    "one inside a function": ("roads", {"run.py": "def f():\n import sandglass.api"}, "does not stand above"),
    "rooms of one line": ("roads", {"models/vae.py": "from sandglass.engine.loop import Loop"}, "does not stand above"),
    "two of a tier": ("roads", {"schedules/a.py": "from sandglass.nets import mlp"}, "does not stand above"),
    "a relative one": ("roads", {"nets/mlp.py": "from ..data import load"}, "does not stand above"),
    "through the lazy face": ("roads", {"metrics/a.py": "from sandglass import train"}, "does not stand above"),
    "by attribute": ("roads", {"tasks/a.py": "import sandglass\nsandglass.load('x')"}, "does not stand above"),
    "a model that reads data": ("roads", {"models/vae.py": "from sandglass.data import load"}, "does not stand above"),
    "a private module": ("roads", {"models/vae.py": "from sandglass.nets._activation import relu"}, "private"),
    "a private name": ("roads", {"api.py": "from sandglass.runs.run import _writing"}, "private"),
    "an unknown room": ("roads", {"things/a.py": ""}, "is no room"),
    "a vague name": ("roads", {"data/utils.py": ""}, "must say"),
    "a ring": ("cycles", {"data/a.py": "from . import b", "data/b.py": "def f():\n import sandglass.data.a"}, "->"),
    "pickle": ("unsafe", {"run.py": "import pickle"}, "pickle"),
    "pickle of another name": ("unsafe", {"run.py": "from cloudpickle import loads"}, "cloudpickle"),
    "eval": ("unsafe", {"run.py": "eval('1')"}, "eval("),
    "exec": ("unsafe", {"run.py": "exec('1')"}, "exec("),
    "yaml.load": ("unsafe", {"run.py": "import yaml\nyaml.load('x', yaml.Loader)"}, "yaml.load"),
    "torch.load": ("unsafe", {"run.py": "import torch\ntorch.load('x')"}, "torch.load"),
    "torch.load by name": ("unsafe", {"run.py": "from torch import load"}, "load"),
    "pickled arrays": ("unsafe", {"run.py": "np.load('x', allow_pickle=True)"}, "allow_pickle"),
    "a shell": ("unsafe", {"run.py": "subprocess.run('x', shell=True)"}, "shell"),
    "an archive": ("unsafe", {"run.py": "tarfile.open('x').extractall()"}, "extractall"),
    "an import by name": ("unsafe", {"run.py": "importlib.import_module(x)"}, "by name"),
    "one of another room": ("unsafe", {"app/a.py": "importlib.import_module(f'sandglass.data.{x}')"}, "by name"),
}


@pytest.mark.parametrize("case", BAD)
def test_the_check_finds(case: str, tmp_path: Path) -> None:
    check, files, message = BAD[case]
    known = ("engine/loop.py", "data/load.py", "nets/mlp.py", "nets/_activation.py", "api.py", "run.py")
    for name, text in {**dict.fromkeys(known, ""), **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert any(message in line for line in CHECKS[check](tree_of(tmp_path)))


def test_the_check_lets_good_code_pass(tmp_path: Path) -> None:
    files = {
        "core.py": "",
        "data/a.py": "from sandglass import __version__\nfrom sandglass.core import Spec",
        "engine/loop.py": "from sandglass.data import a\nmodel.eval()\nyaml.safe_load('x')",
        "app/main.py": "import sandglass\nsandglass.train('vae')\nfrom sandglass import load\n"
        "importlib.import_module(f'sandglass.app.{name}')",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = tree_of(tmp_path)
    assert [line for check in CHECKS.values() for line in check(modules)] == []
