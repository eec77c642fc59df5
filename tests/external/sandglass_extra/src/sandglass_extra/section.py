"""A section of the report."""

from __future__ import annotations

from sandglass.reports.section import Material, Section, Table, section


@section("weights", place=85)
def weights(m: Material) -> Section:
    """The tensors of the model."""
    rows = [(name, " x ".join(map(str, value.shape))) for name, value in m.model.state_dict().items()]
    return Section("weights", "Weights", "The tensors that the model consists of.", tables=[Table(rows)])
