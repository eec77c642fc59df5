"""Reference pages generated from docstrings and signatures: the public API and everything registered."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docstring_parser import Docstring, DocstringStyle, parse
from tables import table

import sandglass
from sandglass import registry
from sandglass.app.helping import shown

DOCS = Path(__file__).resolve().parent
TITLES = {"dataset": "Data sets"}
"""Page titles of kinds that are not the name with an s."""


def pages() -> dict[str, str]:
    """The text of every reference page, by its path in the site."""
    made = {f"reference/{kind}s.md": of_kind(kind) for kind in registry.kinds()}
    return {"reference/library.md": face(), **made}


def face() -> str:
    """The page of the public functions and classes of ``import sandglass``."""
    functions = [n for n in sandglass.__all__ if not inspect.isclass(getattr(sandglass, n))]
    classes = [n for n in sandglass.__all__ if n not in functions]
    parts = ["# The library", "The public API of `import sandglass`. The command line has the same features."]
    parts += [f"## {n}\n\n{described(getattr(sandglass, n), f'sandglass.{n}')}" for n in functions]
    for name in classes:
        made = getattr(sandglass, name)
        parts.append(f"## {name}\n\n{described(made, f'sandglass.{name}')}")
        parts += [methods(made)]
    return "\n\n".join(parts) + "\n"


def of_kind(kind: str) -> str:
    """The page of everything registered as a kind."""
    parts = [f"# {title(kind)}"]
    for name in registry.names(kind):
        found = registry.entry(kind, name)
        parts.append(f"## {name}")
        if found.preset or found.summary.startswith("Another name of"):
            parts.append(prose(found.summary) + ".")
        else:
            parts.append("\n\n".join(text(documented(found.make))))
        if (DOCS / f"{kind}s" / f"{name}.md").is_file():
            parts.append(f"[What it is, when it misleads, and how it is checked](../{kind}s/{name}.md)")
        if options := registry.schema(kind, name):
            parts.append(table(("option", "default", "meaning"), [row(option) for option in options]))
    return "\n\n".join(parts) + "\n"


def row(option: registry.Option) -> tuple[str, str, str]:
    """A table row of an option; an option of a registered kind has a link to the page of that kind."""
    default = "required" if option.default is inspect.Parameter.empty else f"`{shown(option.default)}`"
    where = f" One of the [{title(option.kind).lower()}]({option.kind}s.md)." if option.kind else ""
    return f"`{option.name}`", default, prose(option.help) + where


def title(kind: str) -> str:
    """The page title of a kind."""
    return TITLES.get(kind, f"{kind}s".capitalize())


def described(made: Callable[..., Any], name: str) -> str:
    """Signature, description, arguments, return value, exceptions and examples."""
    doc = documented(made)
    parts = [f"```python\n{name}{signature(made)}\n```", *text(doc)]
    arguments = [(f"`{p.arg_name}`", prose(p.description)) for p in doc.params]
    if arguments:
        parts.append(table(("argument", "meaning"), arguments))
    if doc.returns is not None:
        parts.append(f"**Returns** {prose(doc.returns.description)}")
    if doc.raises:
        rows = [(f"`{error.type_name}`", prose(error.description)) for error in doc.raises]
        parts.append(table(("raises", "when"), rows))
    parts += [f"```python\n{inspect.cleandoc(e.description or '')}\n```" for e in doc.examples]
    return "\n\n".join(parts)


def methods(made: type) -> str:
    """A table of the public methods and properties of a class."""
    own = {n: m for n, m in vars(made).items() if not n.startswith("_") and inspect.getdoc(getattr(made, n, None))}
    public = {n: m for n, m in own.items() if callable(m) or isinstance(m, property | classmethod | staticmethod)}
    rows = [
        (f"`{n}`" if isinstance(m, property) else f"`{n}()`", next(text(documented(getattr(made, n))), ""))
        for n, m in public.items()
    ]
    return table(("member", "what it is"), rows)


def signature(made: Callable[..., Any]) -> str:
    """Names and defaults without types, with one argument per line if the signature is long."""
    found = inspect.signature(made)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    line = str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return line if len(line) < 70 else re.sub(r"\((.*)\)", lambda m: broken(m[1]), line)


def broken(arguments: str) -> str:
    r"""Arguments on separate lines.

    Example:
        >>> broken("a, b=(1, 2)")
        '(\n    a,\n    b=(1, 2),\n)'
    """
    return "(\n" + "".join(f"    {a},\n" for a in re.split(r", (?![^(\[{]*[)\]}])", arguments)) + ")"


def documented(made: Any) -> Docstring:
    """The parsed docstring."""
    return parse(inspect.getdoc(made) or "", style=DocstringStyle.GOOGLE)


def text(doc: Docstring) -> Iterator[str]:
    """The short and the long description."""
    for part in (doc.short_description, doc.long_description):
        if part:
            yield prose(part)


def prose(words: str | None) -> str:
    """Docstring text as Markdown: roles become code, literal blocks keep their indentation."""
    words = re.sub(r":\w+:`(?:~[\w.]*\.)?([^`]+)`", r"`\1`", words or "")
    return re.sub(r"^::$", "", words, flags=re.MULTILINE) if "\n    " in words else " ".join(words.split())
