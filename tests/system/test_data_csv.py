"""What separates the cells of a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandglass.data.load import load_data
from sandglass.errors import DataError


@pytest.mark.parametrize("name", ["P(A|B)", "a\tb", '"a|b"', "one|two|three"])
def test_a_separator_in_the_name_of_the_only_column(tmp_path: Path, name: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"{name}\n" + "".join(f"{i / 40}\n" for i in range(40)))
    data = load_data(file)
    assert [column.name for column in data.spec.columns] == [name.strip('"')]
    assert not any("separated" in note for note in data.notes)


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
def test_cells_with_other_separators(tmp_path: Path, separator: str) -> None:
    file = tmp_path / "t.csv"
    rows = [f'{i / 40}{separator}"x{separator}{i % 3}"{separator}{i % 2},5' for i in range(40)]
    file.write_text("\n".join([f"a{separator}b{separator}c", "", *rows]) + "\n")
    data = load_data(file)
    assert [column.name for column in data.spec.columns] == ["a", "b", "c"]
    assert any("separated" in note for note in data.notes)


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
@pytest.mark.parametrize("short", [[0], [3], range(0, 40, 3)])
def test_short_lines_do_not_hide_the_separator(tmp_path: Path, separator: str, short: Any) -> None:
    rows = [separator.join(map(str, (i % 7, i / 7, i % 5)[: 2 if i in short else 3])) for i in range(40)]
    file = tmp_path / "t.csv"
    file.write_text("\n".join([separator.join("abc"), *rows]) + "\n")
    data = load_data(file)
    assert [column.name for column in data.spec.columns] == ["a", "b", "c"]
    assert any("separated" in note for note in data.notes)
    file.write_text("\n".join([separator.join("abc"), *rows, separator.join("1234")]) + "\n")
    with pytest.raises(DataError, match="is not a table"):
        load_data(file)


def test_a_few_texts_with_a_bar_are_cells_of_one_column(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("A|B\n" + "".join("x|y\n" if i in (0, 30) else f"{'uvw'[i % 3]}\n" for i in range(100)))
    assert [column.name for column in load_data(file).spec.columns] == ["A|B"]
