"""What every registered section of the report owes: it draws of each model what that can give, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import made
from sandglass import api, registry
from sandglass.reports.page import gather, write_report
from sandglass.reports.section import Material, Section

SECTIONS = registry.names("section")
Runs = Callable[[str, str], Material]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of one epoch of a model on data of a kind, as a report has it."""

    @cache
    def make(name: str, kind: str) -> Material:
        spec = made.spec_for(name, kind)
        options: dict[str, Any] = dict(made.small(name))
        if any(option.kind == "net" for option in registry.schema("model", name)):
            net = "conv" if spec.is_image else "mlp"
            options["net"] = {"name": net, **made.NETS[net]}
        data = made.dataset(spec)
        folder = tmp_path_factory.mktemp("runs") / name
        run = api.train(name, data, out=folder, epochs=1, threads=1, device="cpu", model_options=options)
        return Material(run, run.load_model(), data)

    return make


@pytest.mark.parametrize("which", made.tiered(["grey", "row"], made.kinds(), full=["ae", "vae"]))
def test_every_section_draws_every_model_or_nothing(which: tuple[str, str], material: Runs) -> None:
    model, kind = which
    m = material(model, kind)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = {}
    for name in SECTIONS:
        with torch.no_grad():
            section = registry.entry("section", name).make(m)
        assert section is None or isinstance(section, Section)
        if section is not None:
            assert section.key == name and section.title
            drawn[name] = section
    assert torch.equal(before, torch.get_rng_state()), "the global generator moved"
    assert {"curves", "data", "timings", "configuration"} <= set(drawn)
    files = [mosaic.name for s in drawn.values() for mosaic in s.mosaics()]
    files += [chart.name for s in drawn.values() for chart in s.charts]
    assert len(files) == len(set(files)), "two figures share a file"
    page = write_report(m.run, m.model, m.data)
    assert all(f'<section id="{name}"' in page.read_text() for name in drawn)


@pytest.mark.parametrize("which", made.tiered(["grey"], made.kinds()))
def test_every_section_does_without_data(which: tuple[str, str], material: Runs) -> None:
    m = material(*which)
    for name in SECTIONS:
        with torch.no_grad():
            section = registry.entry("section", name).make(Material(m.run, m.model, None))
        assert section is None or isinstance(section, Section)


def test_sections_stand_in_the_order_of_their_places(material: Runs) -> None:
    keys = [section.key for section in gather(material("cvae", "grey"))]
    places = [registry.entry("section", key).make.place for key in keys]
    assert places == sorted(places) and len(set(places)) == len(places)
    assert keys.index("curves") == 0 and "classes" in keys


def test_the_sheet_of_classes_has_a_row_for_each(material: Runs) -> None:
    section = registry.entry("section", "classes").make(material("cvae", "grey"))
    assert [text for _, text in section.framed.yticks] == ["a", "b", "c"]
    places = [place for place, _ in section.framed.yticks]
    assert places == sorted(places, reverse=True), "from the top"
    assert registry.entry("section", "classes").make(material("vae", "grey")) is None


def test_curves_of_several_stages_bear_their_names(material: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    m = material("vae", "grey")
    (stage,) = m.model.stages()
    later = [{**r, "stage": "later", "step": r["step"] + 100} for r in m.records]
    both = Material(m.run, m.model, m.data)
    both.__dict__["records"] = [*m.records, *later]
    monkeypatch.setattr(type(m.model), "stages", lambda self: (stage, replace(stage, name="later")))
    section = registry.entry("section", "curves").make(both)
    names = [chart.name for chart in section.charts]
    assert "curve-train-elbo-loss" in names and "curve-later-elbo-loss" in names
    assert any(chart.alt.startswith("later: ") for chart in section.charts) and "epochs restart at 1" in section.how


def test_progress_shows_a_few_sheets_from_the_first_to_the_last(material: Runs) -> None:
    from sandglass.data.pixels import png
    from sandglass.engine.sheets import FOLDER, laid

    m = material("vae", "grey")
    drawn = registry.entry("section", "progress").make
    height, width = m.model.spec.shape[1:]
    folder = m.run.path / FOLDER
    before = list(folder.iterdir())
    for step in range(100, 2000, 100):
        sheet = laid(np.full((64, height, width, 1), step // 10, np.uint8), 8)
        (folder / f"samples-{step:08d}.png").write_bytes(png(sheet))
    for name in ("samples-00000150.png", "photo.png", "other-00000150.png"):
        (folder / name).write_bytes(b"not a picture")
    try:
        section = drawn(m)
    finally:
        for path in set(folder.iterdir()) - set(before):
            path.unlink()
    steps = [int(strip.label.split()[2].replace(",", "")) for strip in section.strips]
    assert steps == sorted(steps) and 3 <= len(steps) <= 6 and steps[-1] == 1900
    shown = section.strips[-1].mosaic.pixels
    assert shown[shown.shape[0] // 2, 3, 0] == 190, "the pictures of that sheet"
    assert drawn(material("vae", "row")) is None


def test_progress_leaves_the_originals_out(material: Runs) -> None:
    section = registry.entry("section", "progress").make(material("ae", "grey"))
    assert section is not None and section.strips[0].label.startswith("Reconstructions after ")


def test_what_a_fit_found_is_in_the_report(material: Runs) -> None:
    section = registry.entry("section", "curves").make(material("ae", "grey"))
    (table,) = section.tables
    assert table.title.endswith("density") and ["codes", "50"] in [list(row) for row in table.rows]


def test_several_latents_have_traversals_and_rates(tmp_path: Path, material: Runs) -> None:
    from sandglass.core import Bound, Latent

    m = material("vae", "grey")
    inner = m.model

    class TwoLevels(type(inner)):  # type: ignore[misc]
        latents = property(lambda self: (Latent("z1", (1,)), Latent("z2", (2,))), lambda self, value: None)

        def bound(self, batch: Any) -> Bound:
            found = super().bound(batch)
            each = found.per_dimension["z"]
            parts = {"z1": each[:, :1], "z2": each[:, 1:]}
            return Bound(found.distortions, {name: part.sum(1) for name, part in parts.items()}, parts)

    inner.__class__ = TwoLevels
    try:
        two = Material(m.run, inner, m.data)
        with torch.no_grad():
            sections = {name: registry.entry("section", name).make(two) for name in SECTIONS}
    finally:
        inner.__class__ = TwoLevels.__mro__[1]
    assert [strip.label for strip in sections["traversals"].strips] == ["z1, 1 dimension", "z2, 2 dimensions"]
    assert "z1" in sections["levels"].charts[0].svg and "z2" in sections["levels"].charts[0].svg
    assert "z2 2" in sections["dimensions"].charts[0].svg or "z2 3" in sections["dimensions"].charts[0].svg
