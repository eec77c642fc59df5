"""A summary of the facts of a census, for the terminal and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sandglass.census.census import Census, listed, some

Facts = Mapping[str, Any]


def headline(census: Census) -> str:
    """A one-line description of the source.

    Example:
        >>> headline(Census("photos", "nothing", {"examples": 0}, ()))
        'nothing that can be read'
    """
    facts = census.facts
    if census.kind == "nothing":
        return "nothing that can be read"
    if census.kind == "table":
        return f"a table of {some(facts['examples'], 'row')} and {some(len(facts['columns']), 'column')}"
    if census.kind == "arrays":
        return f"{some(facts['examples'], 'array')} of shape {'x'.join(map(str, facts['shape']))}"
    return some(facts["examples"], "picture")


def overview(census: Census) -> list[tuple[str, str]]:
    """Pairs of topic and text, in reading order; topics without facts are left out."""
    facts = census.facts
    rows = [("splits", _splits(facts["splits"]))] if facts.get("splits") else []
    if census.kind == "pictures":
        rows += _pictures(facts)
    elif census.kind == "table":
        rows += _table(facts)
    elif census.kind == "arrays":
        values = facts["values"]
        rows.append(("values", f"{values['minimum']:g} to {values['maximum']:g}, {_spread(values)}"))
    return [(topic, text) for topic, text in rows if text]


def _splits(splits: Facts) -> str:
    said = []
    for name, split in splits.items():
        classes = split["classes"]
        text = f"{name} {split['examples']:,}"
        if classes:
            low, high = min(classes.values()), max(classes.values())
            each = f"{low:,} each" if low == high else f"{low:,} to {high:,} each"
            text += f" in {some(len(classes), 'class', 'classes')} of {each}"
        said.append(text)
    return "; ".join(said)


def _pictures(facts: Facts) -> list[tuple[str, str]]:
    sizes = [f"{s['height']}x{s['width']}" for s in facts["sizes"]]
    if len(sizes) > 1:
        sizes = [f"{name} ({s['count']:,})" for name, s in zip(sizes, facts["sizes"], strict=True)]
    size = facts["bytes"]
    files = f"{_bytes(size['total'])} in all, median {_bytes(size['median'])}" if size else ""
    values = facts["values"]
    tones = "; ".join(
        f"{c} {m:.3f} ± {s:.3f}" for c, m, s in zip(values["channels"], values["mean"], values["std"], strict=True)
    )
    exact, near = facts["copies"]["exact"], facts["copies"]["near"]
    copies = f"{exact['extra']:,} exact, {near['pairs']:,} near pairs" if exact["extra"] or near["pairs"] else "none"
    odd = [f"{found['count']:,} {what}" for what, found in facts["odd"].items() if found["count"]]
    passed = facts.get("ignored", {"count": 0})
    unread = [f"{facts['unreadable']['count']:,} cannot be decoded"] if facts["unreadable"]["count"] else []
    unread += [f"{passed['count']:,} skipped"] if passed["count"] else []
    return [
        ("sizes", listed(sizes)),
        ("formats", counts(facts["formats"])),
        ("modes", counts(facts["modes"])),
        ("file sizes", files),
        ("values", f"{tones} (mean ± standard deviation, scaled to 0 to 1)"),
        ("copies", copies),
        ("odd", ", ".join(odd)),
        ("not read", ", ".join(unread)),
    ]


def _table(facts: Facts) -> list[tuple[str, str]]:
    gaps = facts["missing"]
    missing = (
        f"{gaps['cells']:,} cells ({gaps['share']:.1%}), in {some(gaps['columns'], 'column')} and "
        f"{some(gaps['rows'], 'row')}"
        if gaps["cells"]
        else "none"
    )
    same = [f"{c['a']} and {c['b']} ({c['r']:.2f})" for c in facts["correlations"]]
    return [
        ("columns", counts(facts["kinds"])),
        ("missing", missing),
        ("duplicate rows", f"{facts['duplicates']['rows']:,}"),
        ("correlated", listed(same, 3)),
    ]


def column_rows(facts: Facts, few: int | None = None) -> tuple[Sequence[str], list[list[str]]]:
    """Headers, and a row for each of the first ``few`` columns of a table."""
    head = ["column", "kind", "missing", "distinct", "typical", "range"]
    rows = []
    for column in facts["columns"][:few]:
        typical = scope = ""
        if "mean" in column:
            typical = f"{column['mean']:.3g} ± {column['std']:.2g}"
            scope = f"{column['minimum']:.3g} to {column['maximum']:.3g}"
        elif "first" in column:
            scope = f"{column['first']} to {column['last']}"
        elif column.get("categories"):
            top = column["categories"][0]
            typical = f"{top['value'][:12]} ({top['count']:,})"
        gap = f"{column['missing'] / max(1, facts['examples']):.1%}" if column["missing"] else ""
        rows.append([column["name"], column["kind"], gap, f"{column['distinct']:,}", typical, scope])
    return head, rows


def counts(found: Mapping[str, int]) -> str:
    """Names with their counts.

    Example:
        >>> counts({"PNG": 1200, "GIF": 1}), counts({"PNG": 3})
        ('PNG 1,200, GIF 1', 'PNG')
    """
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{name} {n:,}" for name, n in found.items())


def _spread(values: Facts) -> str:
    return f"mean {values['mean']:.4g}, standard deviation {values['std']:.4g}"


def _bytes(n: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if n >= 10 or unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"
