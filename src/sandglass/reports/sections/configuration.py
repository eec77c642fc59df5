"""The configuration of the run."""

from __future__ import annotations

from sandglass.reports.facts import flat
from sandglass.reports.section import Material, Section, Table, section


@section("configuration", place=120)
def configuration(m: Material) -> Section:
    """All settings of the run, collapsed."""
    config = m.run.config
    data = {k: v for k, v in config["data"].items() if k != "notes"}
    tables = [
        Table(flat(config["model"]), title="Model", folded=True),
        Table(flat(config["training"]), title="Training", folded=True),
        Table(flat(data), title="Data", folded=True),
        Table(flat(config["transform"]), title="Preprocessing of raw data", folded=True),
        Table(flat(config["environment"]), title="Environment", folded=True),
    ]
    how = "Everything needed to reproduce the run; also in config.yaml."
    return Section("configuration", "Configuration", how, half=True, tables=[t for t in tables if t.rows])
