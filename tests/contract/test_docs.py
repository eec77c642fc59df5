"""Every page of prose is true: its Python runs, its commands run, its tables and links are up to date."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<target>[^)#\s]+)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The code of a language on a page, each with the line it begins on."""
    text = page.read_text()
    return [(text[: m.start()].count("\n") + 1, m["code"]) for m in BLOCK.finditer(text) if m["language"] == language]


def commands(page: Path) -> list[str]:
    """The ``sandglass`` lines of a page's shell blocks."""
    lines = (line for _, code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("sandglass ")]


def ids(pages: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in pages]


WITH_PYTHON = [p for p in PAGES if blocks(p, "python")]
WITH_COMMANDS = [p for p in PAGES if commands(p)]


def run_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, for a page may register models; warnings are errors."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=ids(WITH_PYTHON))
def test_python_on_the_page_runs(page: Path, photos: Path) -> None:
    script = photos.parent / "page.py"
    lines = page.read_text().splitlines()
    inside = {line + i for line, code in blocks(page, "python") for i in range(1, code.count("\n") + 1)}
    # The page's own line numbers in a traceback: what is not code is left empty.
    script.write_text("\n".join(text if i in inside else "" for i, text in enumerate(lines, 1)) + "\n")
    done = run_python(str(script), cwd=photos.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=ids(WITH_COMMANDS))
def test_commands_on_the_page_run(
    page: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandglass.app.main import main

    monkeypatch.chdir(photos.parent)
    (photos.parent / "table.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(60)) + "\n")
    for command in commands(page):
        words = shlex.split(command, comments=True)[1:]
        if words[0] == "train" and "--resume" not in words and "--help" not in words:
            words = [w for i, w in enumerate(words) if "--epochs" not in (w, words[i - 1])] + ["--epochs", "1"]
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        assert not code, f"{command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("example", EXAMPLES, ids=ids(EXAMPLES))
def test_example_runs(example: Path, photos: Path) -> None:
    words = [str(photos)] if "pictures" in example.name else []
    done = run_python(str(example), *words, "--epochs", "2", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert list(photos.parent.glob("*.png")), "an example leaves a picture to look at"


def test_tables_are_up_to_date(tmp_path: Path) -> None:
    check = (str(ROOT / "docs" / "tables.py"), "--check")
    done = run_python(*check, cwd=tmp_path)  # apart, for tests register models of their own
    assert done.returncode == 0, f"{done.stdout}{done.stderr}Run `make tables`."


def test_tables_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "tables.py", tmp_path / "docs")
    text = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace("| `vae` |", "| `vea` |"))
    script = str(tmp_path / "docs" / "tables.py")
    assert run_python(script, "--check", cwd=tmp_path).returncode == 1
    assert run_python(script, cwd=tmp_path).returncode == 0
    assert (tmp_path / "README.md").read_text() == text
    kinds = ("models", "nets", "likelihoods", "priors", "datasets", "tasks", "metrics", "features", "recipes")
    assert [kind for kind in kinds if f"<!-- {kind} -->" not in text] == []


def test_exit_codes_are_documented() -> None:
    from sandglass import errors

    page = (ROOT / "docs" / "training.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE))
    found = {str(e.exit_code): e.__name__ for e in vars(errors).values() if isinstance(e, type)}
    assert rows == found


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [m["target"] for m in LINK.finditer(page.read_text())]
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_the_check_of_blocks_can_find(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\n1 / 0\n```\n\n```sh\nsandglass models  # a list\nmake\n```\n")
    assert blocks(page, "python") == [(3, "1 / 0\n")]
    assert commands(page) == ["sandglass models  # a list"]
