"""The package as a stranger gets it: a light import without side effects, and a wheel that holds what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import sandglass

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

IMPORT = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")
socket.socket.__init__ = refuse
written = []
sys.addaudithook(lambda event, args: written.append(args[0]) if event == "open" and is_write(args) else None)
def is_write(args):
    return isinstance(args[1], str) and set(args[1]) & set("wax+")
import sandglass
assert sandglass.__version__ and "train" in dir(sandglass)
heavy = {"torch", "numpy", "matplotlib", "sklearn", "pandas", "PIL", "rich", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
assert not written, written
"""


def python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


def test_import_is_light_and_has_no_effects(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    done = python("-X", "dev", "-W", "error", "-c", IMPORT, cwd=tmp_path, HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []


def test_the_whole_face_imports_without_warnings_or_sockets(tmp_path: Path) -> None:
    blocked = IMPORT.split("written = []")[0]
    done = python("-W", "error", "-c", f"{blocked}\nfrom sandglass import *", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_is_a_release_number() -> None:
    from packaging.version import Version

    assert str(Version(sandglass.__version__)) == sandglass.__version__
    assert f"\nversion: {sandglass.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_constraints_are_exact_and_name_every_dependency() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pinned = {canonicalize_name(r.name): r.specifier for r in lines}
    assert [str(s) for s in pinned.values() if not str(s).startswith("==") or "+" in str(s)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    wanted = [r for r in map(Requirement, asked) if canonicalize_name(r.name) != project["name"]]
    versions = {r.name: str(pinned[canonicalize_name(r.name)]).removeprefix("==") for r in wanted}
    assert [r.name for r in wanted if not r.specifier.contains(versions[r.name])] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that nothing is left behind in it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(SOURCE, folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    words = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", ".")
    done = python(*words, cwd=folder, PIP_DISABLE_PIP_VERSION_CHECK="1")
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_wheel_holds_every_file_it_needs(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    code = {f"sandglass/{f.relative_to(SOURCE / 'sandglass').as_posix()}" for f in (SOURCE / "sandglass").rglob("*.py")}
    data = {
        f"sandglass/{f.relative_to(SOURCE / 'sandglass').as_posix()}"
        for f in (SOURCE / "sandglass").rglob("*")
        if f.is_file() and f.suffix not in (".py", ".pyc")
    }
    assert (code | data) - held == set()
    assert "sandglass/py.typed" in held
    assert any(name.startswith("sandglass/recipes/") and name.endswith(".yaml") for name in held)
    assert any(name.startswith("sandglass/reports/") and name.endswith(".html") for name in held)
    own = ("sandglass/", f"sandglass_ml-{sandglass.__version__}.dist-info/")
    strangers = {name for name in held if not name.startswith(own)}
    assert strangers == set()


def test_wheel_installs_and_its_command_runs(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    folder = "Scripts" if os.name == "nt" else "bin"
    inside = home / folder / "python"
    words = ("-m", "pip", "--python", str(inside), "install", "-q", "--no-deps", "--no-index", str(wheel))
    # Without the source on the path, where pip might find it installed already.
    done = python(*words, cwd=tmp_path, PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    # The dependencies are this environment's own; it is its packages that are lent, not an editable Sandglass.
    purelib = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(purelib, "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(name: str, *words: str) -> str:
        done = subprocess.run([home / folder / name, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "venv" in run("python", "-c", "import sandglass; print(sandglass.__file__)")
    assert "train" in run("sandglass", "--help")
    assert sandglass.__version__ in run("sandglass", "--version")
    assert "vae" in run("sandglass", "models")
    assert "digits" in run("sandglass", "recipes")


def test_listing_the_models_loads_no_compiler() -> None:
    """Some operations on the device ``meta`` import PyTorch's compiler, which takes seconds."""
    code = (
        "import sys\nfrom sandglass import registry\n"
        "[registry.declared(name) for name in registry.names('model')]\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
