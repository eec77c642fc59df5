"""No file that anybody made makes anything run: each would leave a mark if it did, and careless readers show that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sandglass
from hostile import corpus

HERE = Path(__file__).parents[1]
SOURCE = Path(sandglass.__file__).parent

HARMLESS = re.compile(  # read, and rightly: as text, as a log without a whole line, or by nobody
    r"data\.(csv|tsv)|run metrics\.jsonl|model README\.md|run checkpoints/extra\.pkl"
)


def run(script: str, tmp_path: Path, *words: str, **environment: str) -> tuple[list[list[str]], list[str]]:
    """The lines a child wrote, and the marks that were left."""
    files, marks = tmp_path / "files", tmp_path / "marks"
    files.mkdir()
    marks.mkdir()
    for hostile in corpus(marks):
        (files / hostile.name).write_bytes(hostile.data)
    done = subprocess.run(
        [sys.executable, str(HERE / script), str(files), str(marks), *words],
        capture_output=True, text=True, timeout=600, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()], sorted(f.name for f in marks.iterdir())


def test_the_files_are_live(tmp_path: Path) -> None:
    """The control: opened by a careless reader, every one of them runs."""
    _, marks = run("hostile.py", tmp_path)
    assert len(marks) >= 30
    assert {m.split(".")[0] for m in marks} == {h.name.split(".")[0] for h in corpus(tmp_path)}


def nothing_ran(tmp_path: Path, every: int, **environment: str) -> None:
    found, marks = run("offer.py", tmp_path, str(every), **environment)
    assert marks == []
    assert len(found) > 30 * 39 // every
    assert {place for _, place, _ in found} >= {"data.npz", "codes.npy", "config", "init-from", "model config.json"}
    assert [line for line in found if line[2] not in ("refused", "read")] == []
    read = [(name, place) for name, place, how in found if how == "read" and not HARMLESS.fullmatch(place)]
    # A sound file of no tensors, whatever its metadata holds, is damage of another kind: the optimiser misses its own.
    assert {name for name, _ in read} <= {"metadata.safetensors"}


def test_nothing_runs_even_where_the_environment_asks_pytorch_for_pickles(tmp_path: Path) -> None:
    """Each file at every tenth place, another tenth for the next file; no fallback of PyTorch is within reach."""
    nothing_ran(tmp_path, 10, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")


@pytest.mark.slow
@pytest.mark.parametrize("force", ["0", "1"])
def test_nothing_runs_anywhere(force: str, tmp_path: Path) -> None:
    nothing_ran(tmp_path, 1, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=force)


FORBIDDEN = {
    "pickle": r"\bpickle\b(?! *(=|to be read|\.$))",
    "joblib": r"joblib\.load",
    "allow_pickle=True": r"allow_pickle\s*=\s*True",
    "yaml.load(": r"yaml\.(load|unsafe_load|full_load)\(",
    "weights_only=False": r"weights_only\s*=\s*False",
    "torch.load(": r"torch\.load\(",
    "eval(": r"(?<![.\w])eval\(",
    "exec(": r"(?<![.\w])exec\(",
    "shell=True": r"shell\s*=\s*True",
    "extractall": r"extractall",
    "LOAD_TRUNCATED": r"LOAD_TRUNCATED",
    "__import__": r"__import__",
    "trust": r"trust_remote_code|(?<!from)_target_",
}


def code(text: str) -> str:
    """Source without comments and docstrings, where such words may be said."""
    import ast

    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def unsafe(text: str) -> list[str]:
    found = [name for name, pattern in FORBIDDEN.items() if re.search(pattern, text)]
    said = code(text) if found else ""  # which takes its time
    return [name for name in found if re.search(FORBIDDEN[name], said)]


def test_the_source_has_no_unsafe_reader() -> None:
    found = {str(f.relative_to(SOURCE)): unsafe(f.read_text()) for f in SOURCE.rglob("*.py")}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("line", [
    "import pickle", "joblib.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f, L)", "torch.load(f)", "eval('1')",
    "torch.load(f, weights_only=False)", "exec(x)", "run(c, shell=True)", "t.extractall()", "__import__(name)",
    "ImageFile.LOAD_TRUNCATED_IMAGES = True",
])  # fmt: skip
def test_the_check_of_the_source_finds(line: str) -> None:
    assert unsafe(line)
