"""Every promise names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "promises.md"
LINK = re.compile(r"\[`(\w+)`\]\(([^)]+)\)")


def broken(text: str, page: Path) -> list[str]:
    """Promises without a test, and tests that are not there."""
    found = []
    promises = text.split("# What we do not promise")[0]
    for promise in re.split(r"^\* ", promises, flags=re.MULTILINE)[1:]:
        links = LINK.findall(promise)
        found += [] if links else [promise.split("\n")[0]]
        for test, file in links:
            path = page.parent / file
            tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
            if test not in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}:
                found.append(test)
    return found


def test_every_promise_is_held_by_a_test() -> None:
    text = PAGE.read_text()
    assert len(LINK.findall(text)) > 15
    assert broken(text, PAGE) == []


def test_the_check_finds() -> None:
    promises = "* One. [`test_no`](../tests/security/test_promises.py)\n* Two.\n* [`test_x`](no.py)\n"
    text = f"{promises}# What we do not promise\n* A"
    assert broken(text, PAGE) == ["test_no", "Two.", "test_x"]
