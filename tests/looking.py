"""What tests of ``sandglass inspect`` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import Cli
from sandglass.app.main import main
from sandglass.census.census import Census

TABLE = "id,age,height,height_cm,town,note,same,bad\n" + "".join(
    f"{i},{'' if i % 25 == 0 else 20 + i % 50},{1.5 + i % 40 / 100},{150 + i % 40},{['Bern', 'Rome', 'Oslo'][i % 3]},"
    f"text {i},7,{'none yet' if i == 5 else i * i % 89}\n"
    for i in range(1000)
)


def inspect_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs the command 80 columns wide: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["inspect", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def said(census: Census) -> dict[str, str]:
    """The message of each finding, by name; those of one name together."""
    made: dict[str, str] = {}
    for finding in census.findings:
        made[finding.name] = f"{made.get(finding.name, '')} {finding.message} {finding.advice}".strip()
    return made


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
