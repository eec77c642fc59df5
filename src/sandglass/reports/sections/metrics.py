"""What was measured."""

from __future__ import annotations

from sandglass.reports.facts import called, figure
from sandglass.reports.section import Material, Section, Table, section


@section("metrics", place=90)
def metrics(m: Material) -> Section | None:
    """What was measured."""
    rows = []
    for report in m.reports:
        for name, r in report["metrics"].items():
            unit = {"1": "", "dB": "dB"}.get(r["unit"], r["unit"])
            rows.append([called(name), report["split"], figure(r["value"], r["stderr"]), unit, f"{r['n']:,}",
                         r.get("note", "")])  # fmt: skip
    if not rows:
        return None
    step = ", ".join(dict.fromkeys(f"{r['step']:,}" for r in m.reports))
    how = (
        f"Measured on the weights of step {step}: mean ± standard error over n examples. The error says how far "
        "another "
        "draw of as many examples would move the figure, not how far another training would."
    )
    if any(row[5].startswith("grey values") for row in rows):
        how += (
            " Grey values in a Bernoulli give figures that compare only among such figures, not with other likelihoods."
        )
    head = ["measure", "split", "value ± standard error", "unit", "n", "note"]
    return Section("metrics", "Measures", how, tables=[Table(rows, head, numbers=(2, 4))])
