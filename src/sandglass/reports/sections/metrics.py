"""Results of the evaluation."""

from __future__ import annotations

from sandglass.reports.facts import called, figure
from sandglass.reports.section import Material, Section, Table, section
from sandglass.runs.result import better


@section("metrics", place=90)
def metrics(m: Material) -> Section | None:
    """All evaluated metrics."""
    rows = []
    for report in m.reports:
        for name, r in report["metrics"].items():
            unit = {"1": "", "dB": "dB"}.get(r["unit"], r["unit"])
            rows.append([called(name), report["split"], figure(r["value"], r["stderr"]), better(name) or "", unit,
                         f"{r['n']:,}", r.get("note", "")])  # fmt: skip
    if not rows:
        return None
    step = ", ".join(dict.fromkeys(f"{r['step']:,}" for r in m.reports))
    how = (
        f"Evaluated with the weights of step {step}: mean ± standard error over n examples. The error is the variation "
        "between samples of n examples, not between training runs."
    )
    if all(report.get("quick") for report in m.reports):
        how += " These are quick figures, of few samples; sandglass evaluate measures more of them, and more exactly."
    if any(row[-1].startswith("grey values") for row in rows):
        how += " Grey values under a Bernoulli give cross-entropies, which are not comparable with other likelihoods."
    head = ["metric", "split", "value ± standard error", "better", "unit", "n", "note"]
    return Section("metrics", "Metrics", how, tables=[Table(rows, head, numbers=(2, 5))])
