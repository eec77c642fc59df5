"""Word counts of the docstrings of Python's standard library, a small corpus that every machine has."""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sandglass.data.sets._options import whole
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.splits import carve
from sandglass.data.transform import TableTransform
from sandglass.errors import DataError, MissingPackageError
from sandglass.registry import register

_WORD = re.compile(r"[a-z]{3,}")
_OTHER = ("test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "ensurepip", "turtledemo", "config-")
_LEAST = 10  # words of a document
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@register("docstrings", kind="dataset")
class Docstrings:
    """Word counts of the docstrings in Python's standard library, for topic models; needs no download.

    A document is the docstring of a module, class or function, with at least ten words of the vocabulary, and its label
    is the package that it is in. The vocabulary is the most frequent words of three letters or more that are in five
    documents of the training set, without English stop words. A fifth of the documents of each package is the test
    set. Another version of Python has other documents.

    Args:
        words: size of the vocabulary.
        packages: number of packages, those with the most documents.

    Raises:
        ConfigError: an invalid value.
        DataError: this Python has no source files of its standard library.

    Example:
        >>> raw = Docstrings(words=50, packages=3).read()
        >>> raw.parts["train"].x.shape[1], len(raw.classes)
        (50, 3)
    """

    size = "about 1,500 + 400"
    shape = (1000,)
    licence = "PSF License 2"
    origin = "the standard library of the Python that runs"

    def __init__(self, *, words: int = 1000, packages: int = 20) -> None:
        self.words = whole("docstrings", "words", words, 10)
        self.packages = whole("docstrings", "packages", packages, 2)

    def read(self) -> Raw:
        """The two splits.

        Raises:
            MissingPackageError: scikit-learn is not installed.
            DataError: there are no documents.
        """
        try:
            from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
        except ImportError as error:
            raise MissingPackageError("'docstrings' needs scikit-learn; `pip install scikit-learn`.") from error
        texts = ((package, _WORD.findall(text.lower())) for package, text in documents())
        counted = ((package, Counter(w for w in text if w not in ENGLISH_STOP_WORDS)) for package, text in texts)
        found = [(package, counts) for package, counts in counted if counts.total() >= _LEAST]
        if len({package for package, _ in found}) < 2:
            raise DataError("docstrings: this Python has no source files of its standard library to read.")
        largest = Counter(package for package, _ in found).most_common(self.packages)
        packages = tuple(sorted(package for package, _ in largest))
        found = [(package, counts) for package, counts in found if package in packages]
        y = torch.tensor([packages.index(package) for package, _ in found])
        index = carve(len(found), {"test": 0.2}, 0, y)
        learnt = [found[i][1] for i in index["train"].tolist()]
        in_documents = Counter(word for counts in learnt for word in counts)
        total = Counter[str]()
        for counts in learnt:
            total.update(counts)
        words = sorted([w for w, _ in total.most_common() if in_documents[w] >= 5][: self.words])
        table = np.array([[counts[word] for word in words] for _, counts in found], dtype=np.int64)
        rows = {name: [i for i in index[name].tolist() if table[i].sum() >= _LEAST] for name in ("train", "test")}
        columns = zip(words, table[rows["train"]].T, strict=True)
        transform = TableTransform(tuple(_column(word, counts) for word, counts in columns))
        parts = {name: Part(transform.apply(table[chosen]), y[chosen]) for name, chosen in rows.items()}
        return Raw(parts, transform, classes=packages)


def documents() -> Iterator[tuple[str, str]]:
    """Packages of the standard library, and the docstrings in them; each text once, in the order of the files."""
    library, seen = Path(sysconfig.get_path("stdlib")), set()
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if any(part.startswith(_OTHER) for part in parts[:-1]) or parts[-1].startswith(("test_", "__phello__")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the code that is read
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in documented(tree):
            text = ast.get_docstring(node, clean=False)
            if text and text not in seen:
                seen.add(text)
                yield parts[0].removesuffix(".py"), text


def documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The module, its classes and functions, and those within them, in the order of the file."""
    if isinstance(node, _DOCUMENTED):
        yield node
    for child in (*getattr(node, "body", ()), *getattr(node, "orelse", ()), *getattr(node, "handlers", ())):
        if isinstance(child, ast.stmt | ast.excepthandler):
            yield from documented(child)


def _column(word: str, counts: np.ndarray) -> dict[str, object]:
    """A column of counts, scaled as those of tables are."""
    spread = max(float(counts.std()), 1e-3)
    scale = 2.0 ** round(np.log2(spread))
    return {"name": word, "kind": "count", "mean": float(round(counts.mean())), "scale": scale, "dtype": "int64"}
