"""Flows as posteriors: inverses, determinants and densities."""

from __future__ import annotations

import pytest
import torch

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.registry import resolve

FLOWS = ("planar", "radial", "iaf", "spline")


def family(name: str, dim: int = 3):
    with rng.forked("cpu", 0):
        own = {"context": 4, "widths": (8,)} if name in ("iaf", "spline") else {}
        return resolve("posterior", {"name": name, **own}, dim).double()


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_the_inverse_undoes_it_and_the_determinant_is_that_of_the_jacobian(name: str, size: float) -> None:
    """Also where parameters are large: every flow is invertible whatever the encoder gives."""
    flow = family(name)
    with rng.forked("cpu", 1):
        e, more = torch.randn(20, 3).double(), size * torch.randn(20, flow.width - 6).double()
    z, log_det = flow.flow(e, more)
    back, again = flow.inverse(z, more)
    assert torch.allclose(back, e, atol=1e-7) and torch.allclose(log_det, again, atol=1e-6)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda x, i=i: flow.flow(x[None], more[i : i + 1])[0][0], e[i])
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(log_det[i].item(), abs=1e-8)


@pytest.mark.parametrize("name", FLOWS)
def test_the_density_of_the_last_draw_is_that_of_the_inverse(name: str) -> None:
    """And so are its gradients with respect to the encoder's output, by finite differences."""
    flow = family(name)
    with rng.forked("cpu", 1):
        h = torch.randn(4, flow.width).double().requires_grad_()
        q = flow(h)
        z = q.rsample()
    assert torch.allclose(q.log_prob(z), q.log_prob(z.clone()), atol=1e-7)
    fixed = z.detach()
    assert torch.autograd.gradcheck(lambda h: flow(h).log_prob(fixed), (h,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_an_encoder_that_gives_zeros_gives_the_gaussian(name: str) -> None:
    """Planar with w = 0 moves all codes alike; radial with b = 0 moves none."""
    flow = family(name)
    h = torch.zeros(2, flow.width).double()
    z = torch.randn(2, 3).double()
    assert torch.allclose(flow(h).log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1), atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_fits_a_posterior_that_no_gaussian_is(name: str) -> None:
    """A crescent, ``z_2 = z_1^2 + noise``: the KL of the best diagonal Gaussian is far above that of the flow."""

    def log_p(z: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(0.0, 1.0)
        return normal.log_prob(z[..., 0]) + torch.distributions.Normal(z[..., 0].square(), 0.5).log_prob(z[..., 1])

    reached = {}
    for kind in ("gaussian", name):
        with rng.forked("cpu", 2):
            made = resolve("posterior", "gaussian", 2) if kind == "gaussian" else family(kind, 2).float()
            h = (0.1 * torch.randn(1, made.width)).requires_grad_()
            optimizer = torch.optim.Adam([h, *made.parameters()], 0.02)
            for _ in range(500):
                q = made(h.expand(64, -1))
                z = q.rsample()
                loss = (q.log_prob(z) - log_p(z)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                q = made(h.expand(4000, -1))
                z = q.rsample()
                reached[kind] = float((q.log_prob(z) - log_p(z)).mean())
    assert reached["gaussian"] > 0.3
    assert reached[name] < (0.9 if name == "radial" else 0.6) * reached["gaussian"], "radial ones bend least"


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_are_finite_in_single_precision(name: str) -> None:
    x = 3 * torch.randn(30, 6)
    model = fresh("vae", rows(x), latent_dim=4, posterior=name)
    terms = model.elbo(Batch(x), Clock.final())
    terms.loss.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.log_prob(x, k=5).isfinite().all() and model.encode(x).shape == (30, 4)
