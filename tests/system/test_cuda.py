"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from helpers import fresh, make_loop, pictures, stop_at
from sandglass import registry

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("name", registry.names("model"))
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_step_never_makes_the_host_wait(name: str, optimizer: str, tmp_path: Path) -> None:
    data = pictures()
    model = fresh(name, data, latent_dim=3, net={"name": "conv", "width": 4, "norm": "batch"})
    options = {"epochs": 4, "batch_size": 8, "device": "cuda", "ema": 0.9, "clip": 1.0, "accumulate": 2}
    loop, _ = make_loop(model, data, tmp_path / "run", **options, optimizer=optimizer)
    for _ in range(2):
        loop.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            loop.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp64"])
@pytest.mark.parametrize("name", registry.names("model"))
def test_every_model_trains_in_every_precision(name: str, precision: str, tmp_path: Path) -> None:
    data = pictures()
    model = fresh(name, data, latent_dim=3, net={"name": "conv", "width": 8})
    changes = {"augment": "flip,crop,mixup", "corrupt": "gaussian,blur,mask,jpeg" if model.denoises else ""}
    loop, run = make_loop(
        model, data, tmp_path / "run", epochs=3, batch_size=10, device="cuda", precision=precision, **changes
    )
    loop.fit()
    assert not [r for r in run.metrics() if r["value"] is None]
    assert torch.isfinite(run.load_model().sample(4)).all()


def test_a_stop_and_resume_ends_where_the_straight_run_does(tmp_path: Path) -> None:
    """Bits are not promised on a GPU; figures to a few digits are."""
    data = pictures()

    def start(folder: str):  # type: ignore[no-untyped-def]
        model = fresh("vae", data, latent_dim=3, net="mlp")
        return make_loop(model, data, tmp_path / folder, epochs=4, batch_size=10, device="cuda", precision="fp32")

    straight, run = start("straight")
    straight.fit()
    stopped, _ = start("stopped")
    stop_at(stopped, 7, lambda: setattr(stopped.signals, "stop", 15))
    with pytest.raises(SystemExit):
        stopped.fit()
    again, resumed = start("stopped")
    again.fit(resumed.latest_checkpoint()[0])
    for a, b in zip(run.metrics(), resumed.metrics(), strict=True):
        assert {k: v for k, v in a.items() if k != "value"} == {k: v for k, v in b.items() if k != "value"}
        assert a["value"] == pytest.approx(b["value"], rel=1e-4)


def test_a_bad_update_is_masked_on_the_device(tmp_path: Path) -> None:
    data = pictures()
    model = fresh("vae", data, latent_dim=3, net={"name": "conv", "width": 4, "norm": "batch"})
    loop, run = make_loop(model, data, tmp_path / "run", epochs=3, batch_size=10, device="cuda")
    original = loop.loader.batch
    loop.loader.batch = lambda step: original(step).map(  # type: ignore[method-assign]
        lambda t: t * float("nan") if step == 6 and t.is_floating_point() else t
    )
    with warnings.catch_warnings():
        loop.fit()
    (event,) = [e for e in run.events() if e["event"] == "skipped"]
    assert event["step"] == 6 and event["count"] == 1
    for value in run.load_model().state_dict().values():
        assert torch.isfinite(value.float()).all()


def test_a_model_trained_here_loads_on_a_cpu(tmp_path: Path) -> None:
    data = pictures()
    loop, run = make_loop(fresh("vae", data, latent_dim=3), data, tmp_path / "run", epochs=1, device="cuda")
    loop.fit()
    assert run.load_model(device="cpu").device.type == "cpu"
