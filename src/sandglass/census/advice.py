"""Findings and advice from the facts about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sandglass.census.census import listed, some
from sandglass.runs.finding import Finding

Facts = Mapping[str, Any]

_FEW = 200
_LARGE = 128
_ODD = {
    "constant": (
        "have the same value everywhere",
        "Remove what has the same value everywhere; nothing can be learnt from it.",
    ),
    "black": ("are nearly all black", "Look at the files, and remove failures."),
    "white": ("are nearly all white", "Look at the files, and remove failures."),
    "saturated": ("have half or more of the values at the ends of the range", "Look at the files for bad exposure."),
    "blurred": ("are far less sharp than the rest", "Look at the files, and remove what is out of focus."),
}


def picture_findings(facts: Facts) -> Iterator[Finding]:
    """Findings about pictures."""
    if not facts["examples"]:
        yield from _nothing(facts)
        return
    yield from _sizes(facts)
    yield from _leaks(facts)
    yield from _repeats(facts)
    yield from _number(facts["splits"], facts["examples"], "picture")
    yield from _files(facts)
    for what, found in facts["odd"].items():
        if n := found["count"]:
            level = "warning" if what == "constant" else "info"
            seen, advice = _ODD[what]
            verb = seen if n > 1 else seen.replace("have ", "has ").replace("are ", "is ")
            yield Finding(what, level, f"{some(n, 'picture')} {verb}: {listed(found['files'], 3)}.", advice)  # type: ignore[arg-type]
    yield from _depth(facts)


def balance(splits: Facts, what: str) -> Iterator[Finding]:
    """A finding about class imbalance in the training set."""
    classes = splits.get("train", {}).get("classes", {})
    if len(classes) < 2:
        return
    low, high = min(classes, key=classes.get), max(classes, key=classes.get)
    if classes[low] * 5 <= classes[high]:
        yield Finding(
            "balance",
            "warning",
            f"Class '{low}' has {some(classes[low], what)}, '{high}' {classes[high]:,}.",
            "The model will mostly learn the large classes; add examples of the small ones or leave them out.",
        )


def _number(splits: Facts, total: int, what: str) -> Iterator[Finding]:
    if total < _FEW:
        yield Finding(
            "few",
            "warning",
            f"There {'is' if total == 1 else 'are'} only {some(total, what)}.",
            "A model overfits so few; add more, or use data augmentation with --augment.",
        )
    yield from balance(splits, what)


def _nothing(facts: Facts) -> Iterator[Finding]:
    bad, passed = facts["unreadable"], facts.get("ignored", {"count": 0})
    if bad["count"]:
        first = bad["files"][0]
        message = f"None of the {some(bad['count'], 'picture')} can be read: {first['name']}: {first['reason']}."
        yield Finding("unreadable", "problem", message, "Save them again as PNG or JPEG.")
        return
    advice = "Give a folder that holds PNG, JPEG, WebP, TIFF, BMP or GIF files."
    reasons = ", ".join(f"{reason} ({n:,})" for reason, n in passed.get("reasons", {}).items())
    message = "There is no picture in it" + (f": all entries were skipped ({reasons})." if reasons else ".")
    yield Finding("empty", "problem", message, advice)


def _sizes(facts: Facts) -> Iterator[Finding]:
    sizes = facts["sizes"]
    sides = sorted(min(s["height"], s["width"]) for s in sizes for _ in range(min(s["count"], 1000)))
    middle = sides[len(sides) // 2]
    good = max([k for k in (8, 16, 32, 64, _LARGE) if k <= middle], default=8)
    if len(sizes) > 1:
        first, last = (min if f else max for f in (True, False))
        low, high = (pick(sizes, key=lambda s: s["height"] * s["width"]) for pick in (first, last))
        yield Finding(
            "sizes",
            "warning",
            f"The pictures have {len(sizes)} sizes, from {low['height']}x{low['width']} to "
            f"{high['height']}x{high['width']} (height x width).",
            f"Choose a common size: --size {good}; with --fit crop, pad or stretch.",
        )
        cut = _cut(sizes)
        if cut > 0.25:
            yield Finding(
                "crop",
                "info",
                f"A central square crop loses {cut:.0%} of the median picture.",
                "--fit pad keeps all of it; a size of their aspect ratio (--size HxW) loses least.",
            )
    elif middle > _LARGE:
        yield Finding(
            "large",
            "info",
            f"The pictures are large: {sizes[0]['height']}x{sizes[0]['width']}.",
            f"Start with --size {good}; training takes many times longer at full size.",
        )


def _cut(sizes: list[dict[str, int]]) -> float:
    """The fraction of the median picture that a central square crop loses."""
    lost = sorted(
        1 - min(s["height"], s["width"]) / max(s["height"], s["width"])
        for s in sizes
        for _ in range(min(s["count"], 1000))
    )
    return lost[len(lost) // 2]


def _leaks(facts: Facts) -> Iterator[Finding]:
    for kind, how in (("exact", "are also in"), ("near", "are near duplicates of pictures in")):
        for found in facts["copies"][kind]["across"]:
            n, total = found["pictures"], facts["splits"][found["split"]]["examples"]
            verb = how if n > 1 else how.replace("are", "is", 1)
            yield Finding(
                f"leak-{kind}",
                "warning" if kind == "exact" or n > total / 100 else "info",
                f"{some(n, found['split'] + ' picture')} {verb} {found['other']}.",
                f"Metrics on {found['split']} will be too optimistic; keep a picture in one of the two only.",
            )


def _repeats(facts: Facts) -> Iterator[Finding]:
    exact, near = facts["copies"]["exact"], facts["copies"]["near"]
    total = facts["examples"]
    if exact["conflicting"] or near["conflicting"]:
        n = exact["conflicting"] + near["conflicting"]
        pair = (exact["files"] or [[f["a"], f["b"]] for f in near["files"]])[0]
        yield Finding(
            "conflict",
            "warning" if exact["conflicting"] else "info",
            f"{some(n, 'group')} of exact or near duplicates {'are' if n > 1 else 'is'} in different classes, "
            f"such as {listed(pair, 2)}.",
            "Check them and correct the labels.",
        )
    if n := exact["extra"]:
        yield Finding(
            "copies",
            "warning" if n > total / 20 else "info",
            f"{some(n, 'picture')} {'are exact copies of others' if n > 1 else 'is an exact copy of another'} "
            f"({n / total:.1%}), such as {exact['files'][0][1]} of {exact['files'][0][0]}.",
            "Copies count double in training; a random split keeps them together.",
        )
    if near["pairs"]:
        first = near["files"][0]
        yield Finding(
            "near-copies",
            "warning" if near["pictures"] > total / 10 else "info",
            f"{some(near['pictures'], 'picture')} are near duplicates, such as {first['a']} and "
            f"{first['b']}" + ("." if near["all_compared"] else "; there are more, which were not counted."),
            "A random split may put one into train and the other into test; remove duplicates.",
        )


def _files(facts: Facts) -> Iterator[Finding]:
    bad = facts["unreadable"]
    if n := bad["count"]:
        first = bad["files"][0]
        more = f", and {n - 1:,} more" if n > 1 else ""
        yield Finding(
            "unreadable",
            "warning",
            f"{some(n, 'file')} cannot be read: {first['name']} ({first['reason']}){more}.",
            "Training leaves out what cannot be read; repair or remove it.",
        )
    passed = facts.get("ignored")
    if passed and passed["count"]:
        reasons = ", ".join(f"{reason} ({n:,})" for reason, n in passed["reasons"].items())
        yield Finding("ignored", "info", f"{some(passed['count'], 'entry', 'entries')} skipped: {reasons}.")


def _depth(facts: Facts) -> Iterator[Finding]:
    """Findings about conversions that the loader will make."""
    grey = sum(n for mode, n in facts["modes"].items() if mode in ("1", "L", "LA", "La") or mode.startswith("I"))
    total = facts["examples"]
    if 0 < grey < total:
        yield Finding(
            "modes",
            "info",
            f"{grey:,} of the pictures {'are' if grey > 1 else 'is'} grey and {total - grey:,} in colour.",
            "All are read as RGB; --channels 1 makes them grey.",
        )
    if facts["alpha"]:
        yield Finding(
            "alpha",
            "info",
            f"{some(facts['alpha'], 'picture')} {'are' if facts['alpha'] > 1 else 'is'} partly transparent.",
            "They are composited on white; --channels 4 keeps the transparency.",
        )
    for remark, n in facts["remarks"].items():
        yield Finding("read", "info", f"{some(n, 'picture')}: {remark}.")
