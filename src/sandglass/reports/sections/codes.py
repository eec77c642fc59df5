"""The codes in two dimensions."""

from __future__ import annotations

from sandglass.reports.plots import colour_of_classes, scatter_chart
from sandglass.reports.section import Material, Section, section
from sandglass.tasks import latent_space

_SHOWN = 1500


@section("codes", place=60)
def codes_section(m: Material) -> Section | None:
    """The codes in two dimensions, by class."""
    if m.points is None or m.split is None or m.points.shape[1] < 2:
        return None
    codes = m.points[:_SHOWN]
    y = None if m.split.y is None else m.split.y[: len(codes)].cpu()
    legend = colour_of_classes(y, m.classes)
    if codes.shape[1] == 2:
        names = ("latent dimension 1", "latent dimension 2")
        charts = [scatter_chart("codes", "Codes", codes, y, legend, names)]
        what = "Every point is the code of one example; this is the whole latent space, which has two dimensions."
    else:
        found = latent_space.principal(codes)
        first, second = (f"direction {k + 1}, {share:.0%} of variance" for k, share in enumerate(found.share.tolist()))
        charts = [
            scatter_chart("codes-pca", "Principal directions (PCA)", found.project(codes), y, legend, (first, second))
        ]
        what = (
            "Every point is the code of one example. PCA is a linear projection: distances are faithful, but only in "
            "two directions."
        )
        embedded = latent_space.embed(codes, m.seed)
        if embedded is not None:
            names, some = ("t-SNE 1, no unit", "t-SNE 2, no unit"), None if y is None else y[: len(embedded)]
            charts.append(
                scatter_chart("codes-tsne", "Neighbourhoods (t-SNE)", embedded, some, legend, names, ticks=False)
            )
            what += " t-SNE preserves neighbourhoods: clusters are meaningful, their sizes and distances are not."
            what += f" It shows {len(embedded):,} of the points." if len(embedded) < len(codes) else ""
    if y is not None and "labels" in m.model.modelled:
        what += " The model was trained with labels, but these codes are found without looking at them."
    elif y is not None:
        what += " Unless the model is conditional, it never saw the labels: separated classes are structure it found."
    how = f"{what} {len(codes):,} examples of the {m.split_name} split."
    shared = [(name, shade) for _, name, shade in legend] if y is not None else []
    return Section("codes", "Codes", how, half=len(charts) == 1, legend=shared, charts=charts)
