"""Tables of labels as others write them: paths of another computer, other separators; and labels that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_data_labels import CATS, NAMES, N, csv, flat, kinds, whole

from sandglass.errors import DataError, SandglassError


@pytest.mark.parametrize("before", ["/home/me/photos/", "../p/", "p/", "C:\\data\\"])
def test_paths_of_another_computer_are_found_by_their_ends(tmp_path: Path, before: str) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 3}/{i:03}.png")
    rows = [f"{before}{i % 3}/{i:03}.png,{CATS[i]}" for i in range(N)]
    csv(folder / "m.csv", ["file,kind", *rows])
    data = whole(folder, labels="m.csv:kind")
    assert [data.classes[k] for k in data.train.y] == [CATS[int(Path(n).stem)] for n in data.train.names]
    csv(folder / "m.csv", ["file,kind", "x/000.png,cat", "y/000.png,dog"])
    with pytest.raises(DataError, match="two classes"):
        whole(folder, labels="m.csv:kind")


@pytest.mark.parametrize("separator", ["\t", "|", ";"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    folder = flat(tmp_path / "p")
    csv(folder / "m.csv", [f"{n}{separator}{k}" for n, k in zip(["file", *NAMES], ["kind", *CATS], strict=True)])
    assert kinds(whole(folder, labels=Path("m.csv"))) == CATS


def test_labels_that_cannot_be_are_not_passed_over(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p")
    np.save(tmp_path / "x.npy", np.zeros((9, 8, 8), np.uint8))
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 8, 8), np.uint8), kind=np.arange(9) % 2)
    assert whole(tmp_path / "x.npz", labels="kind").classes == ("0", "1")
    for place, says in (("x.npy", "no names"), ("p/000.png", "no names"), ("x.npz", "no array 'kin'.*'kind'")):
        with pytest.raises(SandglassError, match=says):
            whole(tmp_path / place, labels="kin")
    (folder / "m.csv").write_bytes("file,kind\n000.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"m\.csv is not a table in UTF-8.*save it as UTF-8"):
        whole(folder, labels="m.csv")
