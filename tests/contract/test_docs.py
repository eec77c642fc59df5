"""Every page of prose is true: its Python runs, its commands run or parse, its tables and links are up to date."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
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


def started(page: Path) -> list[str]:
    """The ``sandglass`` commands of a page's shell blocks that another program or a variable comes before.

    They only parse: they take several processes or machines.
    """
    lines = (line for _, code in blocks(page, "sh") for line in code.replace("\\\n", " ").splitlines())
    found = (re.match(r"(?!sandglass |#|python |pip |make ).*?(?:-m |\s)(sandglass .+)", line) for line in lines)
    return [m[1] for m in found if m]


def mentioned(page: Path) -> list[str]:
    """The ``sandglass`` commands in the text of a page, outside of blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    code = [" ".join(m.split()) for m in re.findall(r"`([^`]+)`", text)]
    return [line for line in code if re.match(r"sandglass (?!NAME|TASK|COMMAND)\S", line)]


def ids(pages: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in pages]


WITH_PYTHON = [p for p in PAGES if blocks(p, "python")]
WITH_COMMANDS = [p for p in PAGES if commands(p)]
WITH_MENTIONS = [p for p in PAGES if commands(p) or started(p) or mentioned(p)]
LISTS = (
    *("models", "nets", "likelihoods", "posteriors", "priors", "samplers", "quantisers", "datasets", "metrics"),
    *("tasks", "recipes"),
)


def run_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, for a page may register models; warnings are errors."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=ids(WITH_PYTHON))
def test_python_on_the_page_runs(page: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = page.read_text().splitlines()
    inside = {line + i for line, code in blocks(page, "python") for i in range(1, code.count("\n") + 1)}
    # The page's own line numbers in a traceback: what is not code is left empty.
    code = "\n".join(text if i in inside else "" for i, text in enumerate(lines, 1)) + "\n"
    if page.parent.name == "models":  # the many pages of models run here, which saves each an import of PyTorch
        monkeypatch.chdir(photos.parent)
        exec(compile(code, str(page), "exec"), {"__name__": "page"})
        return
    script = photos.parent / "page.py"
    script.write_text(code)
    done = run_python(str(script), cwd=photos.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=ids(WITH_COMMANDS))
def test_commands_on_the_page_run(
    page: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sandglass.app.main import main

    monkeypatch.chdir(photos.parent)
    rows = [f"{i},{i * i % 7}" for i in range(60)]
    (photos.parent / "table.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    (photos.parent / "gaps.csv").write_text("\n".join(["a,b", *rows, ",3", "17,"]) + "\n")
    for command in commands(page):
        words = shlex.split(command, comments=True)[1:]
        if words[0] == "train" and "--resume" not in words and "--help" not in words:
            long = ("epochs", "minutes")  # one epoch instead
            kept = [w for i, w in enumerate(words) if not (w.endswith(long) or words[i - 1].endswith(long))]
            kept = ["16" if w == "32" and kept[i - 1] == "--size" else w for i, w in enumerate(kept)]
            words = [*kept, "--epochs", "1", *([] if page.name == "README.md" else ["--no-report"])]
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
        assert not code, f"{command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", WITH_MENTIONS, ids=ids(WITH_MENTIONS))
def test_commands_on_the_page_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cheap check of every command, also of those in the text, which are not run: nothing is read or trained."""
    lines = [*commands(page), *started(page), *mentioned(page)]
    assert {line: why for line in dict.fromkeys(lines) if (why := misfit(line, capsys))} == {}


def misfit(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with the words of a command; empty where they parse. A word in capitals is a placeholder."""
    from sandglass.app.evaluate import dotted, typed
    from sandglass.metrics.measure import wanted

    words = [w for w in shlex.split(line, comments=True)[1:] if not re.fullmatch(r"[A-Z_]+|\.\.\.", w)]
    words = words[:-1] if words[-1] in ("--data", "--recipe", "--resume") else words
    command = words[0]
    if command == "train" and not {"--resume", "--config", "--help"} & {*words}:
        return said([*words, "--print_config"], capsys)[1]
    if command.startswith("-"):
        return said(words, capsys)[1]
    page, wrong = said([command, "--help"], capsys)
    if command in ("evaluate", "compare") and not wrong:
        words, options = dotted(words)
        for metric, given in options.items():
            typed(metric, given)
        if "--metrics" in words:
            wanted(words[words.index("--metrics") + 1].split(","), [])
    if command == "sweep":
        page += said(["train", "--help"], capsys)[0]
    given = {w.partition("=")[0] for w in words[1:] if re.match(r"--?[a-z]", w)} - {"--help"}
    known = {*re.findall(r"(?<![\w-])--?[\w.-]+", page)}
    unknown = [w for w in sorted(given - known) if not (command == "train" and w.startswith("--stage."))]
    return wrong or f"no option {', '.join(unknown)}" * bool(unknown)


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a command prints, and its complaint where it ends with one."""
    from sandglass.app.main import main

    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return out, err or f"ended with {code}" if code else ""


@functools.cache
def flags() -> frozenset[str]:
    """Every flag that some command takes, by ``--help`` and by the options of models and metrics."""
    from sandglass import registry
    from sandglass.app.commands import commands as all_commands
    from sandglass.app.flags import Flags
    from sandglass.app.main import main

    found = {"--no-cache"}  # a synonym
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for command in ("--help", *(c.name for c in all_commands())):
            with contextlib.suppress(SystemExit):
                main([command] if command == "--help" else [command, "--help"])
    found |= {*re.findall(r"(?<![\w-])--[\w.-]+", out.getvalue())}
    for name in registry.names("model"):
        found |= Flags(name, {}).forms.keys()
    for name in registry.names("metric"):
        found |= {f"--{name}.{option.name}" for option in registry.schema("metric", name)}
    return frozenset(found)


OTHERS = {"--signal", "--shutdown-timeout", "--pictures", "--nproc-per-node"}  # of other programs


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_flags_on_the_page_are_there(page: Path) -> None:
    """Flags in the text, outside of commands; ``NAME`` and the like are placeholders."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    shown = {flag for code in re.findall(r"`(--[^`]+)`", text) for flag in re.findall(r"(?:^|\s)(--[\w.-]+)", code)}
    shown = {flag for flag in shown if not re.search(r"[A-Z]{4,}", flag)}
    assert sorted(shown - flags() - OTHERS) == []


@pytest.mark.parametrize(
    "line",
    [
        "sandglass trian vae",
        "sandglass train vea --data digits",
        "sandglass train vae --data digits --lattent-dim 2",
        "sandglass train vae --data digits --likelihood gaussian --likelihood.spread 2",
        "sandglass generate RUN --labels each",
        "sandglass train --resume RUN --epoch 3",
        "sandglass sweep vae --varry lr=1,2",
    ],
)
def test_the_check_of_commands_can_find(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert misfit(line, capsys) != ""


def test_the_check_of_metrics_can_find(capsys: pytest.CaptureFixture[str]) -> None:
    from sandglass.errors import ConfigError

    for line in ("sandglass evaluate RUN --metrics bond", "sandglass evaluate RUN --fid.sampels 3"):
        with pytest.raises(ConfigError):
            misfit(line, capsys)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_what_else_is_typed_is_there(page: Path) -> None:
    """Targets of make, scripts, and extras of pip."""
    text = page.read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    shown = [code for _, block in blocks(page, "sh") for code in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
    for code in shown:
        if found := re.match(r"make ([a-z-]+)", code):
            assert found[1] in targets, code
        elif found := re.match(r"python (\S+\.py)", code):
            assert (ROOT / found[1]).is_file(), code
        elif found := re.match(r"pip install '[^\[]+\[(\w+)\]'", code):
            assert found[1] in extras, code


@pytest.mark.parametrize("command", LISTS)
def test_a_list_names_everything_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sandglass import recipes, registry
    from sandglass.app.main import main

    assert main([command]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()}
    names = recipes.names() if command == "recipes" else registry.names(command.removesuffix("s"))
    assert set(names) <= listed


def test_the_files_to_read_first_are_short() -> None:
    """The README, the vocabulary, a model and a step, which the README names, are under 800 lines together."""
    files = ["README.md", *(f"src/sandglass/{name}.py" for name in ("core", "models/vae", "engine/step"))]
    text = (ROOT / "README.md").read_text()
    assert all(f"({name})" in text for name in files[1:])
    assert sum(len((ROOT / name).read_text().splitlines()) for name in files) < 800


def test_the_readme_is_short_and_leaves_tables_to_the_site() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150 and "<!--" not in text


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
    shutil.copy(ROOT / "README.md", tmp_path)
    text = (ROOT / "docs" / "models.md").read_text()
    (tmp_path / "docs" / "models.md").write_text(text.replace("| `vae` | Variational", "| `vea` | Variational"))
    script = str(tmp_path / "docs" / "tables.py")
    assert run_python(script, "--check", cwd=tmp_path).returncode == 1
    assert run_python(script, cwd=tmp_path).returncode == 0
    assert (tmp_path / "docs" / "models.md").read_text() == text


def test_every_table_is_on_a_page() -> None:
    kinds = re.findall(r'^    "(\w+)": ', (ROOT / "docs" / "tables.py").read_text(), re.MULTILINE)
    text = "".join(page.read_text() for page in PAGES)
    assert len(kinds) > 12 and [kind for kind in kinds if text.count(f"<!-- {kind} -->") != 1] == []


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


def test_commands_of_several_processes_are_found() -> None:
    found = started(ROOT / "docs" / "processes.md")
    assert len(found) == 6 and all(line.startswith("sandglass ") for line in found)
