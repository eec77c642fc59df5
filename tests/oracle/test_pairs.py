"""Translations with and without pairs against closed forms: losses of set weights, patches, histories, and inverses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec, Terms
from sandglass.errors import ConfigError
from sandglass.models._adversary import Adversary
from sandglass.models._translator import History, PatchCritic, Translator
from sandglass.nets.conv import Conv

SHAPE = (1, 8, 8)
SMALL = {"name": "conv", "width": 4}


def pix2pix(**options: Any) -> tuple[Model, Batch]:
    """A small one, and pairs: a source in one channel, x in three."""
    spec = Spec((3, 8, 8), "unit", given={"source": Spec(SHAPE, "unit")})
    with rng.forked("cpu", 0):
        model = registry.build("pix2pix", spec, **{"net": SMALL, "critic": SMALL} | options)
        return model, Batch(torch.rand(6, 3, 8, 8), given={"source": torch.rand(6, *SHAPE)})


def cycle_gan(**options: Any) -> tuple[Model, Batch]:
    """A small one between pictures of one channel, and examples of both kinds."""
    spec = Spec(SHAPE, "unit", beside={"b": Spec(SHAPE, "unit")})
    with rng.forked("cpu", 0):
        model = registry.build("cycle-gan", spec, **{"net": SMALL, "critic": SMALL} | options)
        return model, Batch(inner(6), beside={"b": Batch(inner(6))})


def inner(n: int) -> Tensor:
    """Pictures without black and white, whose logits are kept."""
    return 0.1 + 0.8 * torch.rand(n, *SHAPE)


def loss_of(terms: Terms) -> float:
    """The loss as a number."""
    return float(terms.loss.detach())


def zero(module: nn.Module) -> None:
    """Every weight 0: scores are 0, translations 1/2."""
    for p in module.parameters():
        nn.init.zeros_(p)


def pointwise(translator: nn.Module, factor: float) -> None:
    """Logits times a factor: 1 is the source itself, -1 its inverse 1 - x."""
    zero(translator)
    with torch.no_grad():
        translator.direct.weight[0, 0, 1, 1] = factor


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("non-saturating", lambda p, q: (p / q).log()),
        ("least-squares", lambda p, q: p / (p + q)),
        ("hinge", lambda p, q: (p - q).sign()),
    ],
)
def test_the_best_critic_is_the_one_in_print(name: str, best: Any) -> None:
    """Over five values with probabilities p and q no other scores have a smaller expected loss."""
    p, q = torch.tensor([0.4, 0.1, 0.2, 0.25, 0.05]), torch.tensor([0.1, 0.3, 0.25, 0.05, 0.3])
    adversary = Adversary(name)

    def expected(scores: Tensor) -> float:
        zeros = torch.zeros(())
        real = adversary.critic(scores, zeros) - adversary.critic(zeros, zeros)
        fake = adversary.critic(zeros, scores)
        return float((p * real + q * fake).sum())

    least = expected(best(p, q))
    with rng.forked("cpu", 1):
        others = [expected(best(p, q) + s * torch.randn(5)) for s in (0.01, 0.1, 1.0) for _ in range(50)]
    assert min(others) > least - 1e-6 and max(others) > least + 0.1


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [("non-saturating", 2 * math.log(2), math.log(2)), ("least-squares", 1.0, 1.0), ("hinge", 2.0, 0.0)],
)
def test_losses_at_scores_of_zero(name: str, critic: float, generator: float) -> None:
    """Zero weights everywhere: scores 0, translations 1/2, so every loss is a closed form of x."""
    model, data = pix2pix(adversary=name, l1=30.0)
    zero(model)
    assert loss_of(model.criticise(data, Clock())) == pytest.approx(critic, abs=1e-5)
    terms = model.generate(data, Clock())
    l1 = (data.x - 0.5).abs().mean((1, 2, 3))  # to x: to the source it would be another
    assert torch.allclose(terms.parts["l1"], l1) and not torch.allclose(
        l1, (data.given["source"] - 0.5).abs().mean((1, 2, 3))
    )
    assert loss_of(terms) == pytest.approx(generator + 30 * float(l1.mean()), rel=1e-5)

    both, pair = cycle_gan(adversary=name, cycle=7.0, identity=3.0)
    zero(both)
    assert loss_of(both.criticise(pair, Clock())) == pytest.approx(2 * critic, abs=1e-5)
    terms = both.generate(pair, Clock())
    away = [float((x - 0.5).abs().mean()) for x in (pair.x, pair.beside["b"].x)]
    assert loss_of(terms) == pytest.approx(2 * generator + (7 + 3) * sum(away), rel=1e-5)


@pytest.mark.parametrize("name", ["non-saturating", "least-squares", "hinge"])
def test_each_side_pulls_the_scores_its_way(name: str) -> None:
    """Losses fall with real scores for the critic and with generated ones for the generator, in training too."""
    real, fake = torch.zeros(2, 3, requires_grad=True)
    adversary = Adversary(name)
    assert bool((torch.autograd.grad(adversary.critic(real, fake.detach()).sum(), real)[0] < 0).all())
    if name != "least-squares":  # whose target for generated ones is the score 0
        assert bool((torch.autograd.grad(adversary.critic(real.detach(), fake).sum(), fake)[0] > 0).all())
    assert bool((torch.autograd.grad(adversary.generator(fake).sum(), fake)[0] < 0).all())
    for model, data in (pix2pix(l1=0.0, adversary=name), cycle_gan(cycle=0.0, adversary=name)):
        for phase in model.phases():
            losses = []
            optimizer = torch.optim.Adam(phase.parameters(), 0.01)
            for _ in range(30):
                optimizer.zero_grad()
                with rng.forked("cpu", 1):
                    loss = phase.loss(data, Clock()).loss
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            assert losses[-1] < losses[0] - 0.05, phase.name


def test_inverses_come_back_and_identity_is_not_inversion() -> None:
    """Both ways 1 - x: the cycle error is 0 and the identity error |1 - 2x|; both ways x: both are 0."""
    model, data = cycle_gan(identity=1.0)
    x, b = data.x, data.beside["b"].x
    for factor in (1.0, -1.0):
        for translator in model.generators.values():
            pointwise(translator, factor)
        terms = model.generate(data, Clock())
        for kind, t in (("a", x), ("b", b)):
            assert float(terms.parts[f"cycle_{kind}"].abs().max()) < 1e-6
            expected = torch.zeros(6) if factor == 1 else (1 - 2 * t).abs().mean((1, 2, 3))
            assert torch.allclose(terms.parts[f"identity_{kind}"], expected, atol=1e-6)
        assert torch.allclose(model.translate(data), x if factor == 1 else 1 - x, atol=1e-6)
        assert torch.allclose(model.reconstruct(data), x, atol=1e-6)


def test_the_two_ways_are_two() -> None:
    """a to b is the inverse, b to a the identity: each translation and each error takes its own."""
    model, data = cycle_gan(identity=1.0)
    pointwise(model.generators["b"], -1.0)
    pointwise(model.generators["a"], 1.0)
    x, b = data.x, data.beside["b"].x
    assert torch.allclose(model.translate(data), 1 - x, atol=1e-6)
    assert torch.equal(model.translate(data), model.translate(data, "b"))
    for to in ("a", "x"):
        assert torch.allclose(model.translate(Batch(b), to), b, atol=1e-6)
    assert torch.allclose(model.sample(6, replace(data, x=None)), b, atol=1e-6)
    parts = model.generate(data, Clock()).parts
    assert torch.allclose(parts["cycle_a"], (1 - 2 * x).abs().mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(parts["cycle_b"], (1 - 2 * b).abs().mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(parts["identity_b"], (1 - 2 * b).abs().mean((1, 2, 3)), atol=1e-6)
    assert float(parts["identity_a"].max()) < 1e-6


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_patch_is_as_large_as_it_is_said_to_be(stages: int) -> None:
    """Scores depend on ``2^(k + 1) - 1`` pixels a side, of x and of the source alike."""
    critic = PatchCritic(Conv(width=4, stages=stages), Spec((1, 64, 64), "unit"), (1, 64, 64)).double()
    x, c = (torch.rand(1, 1, 64, 64, dtype=torch.float64).requires_grad_() for _ in range(2))
    scores = critic(x, c)
    middle = scores.shape[-1] // 2
    for grad in torch.autograd.grad(scores[0, 0, middle, middle], (x, c)):
        rows, columns = (grad[0, 0] != 0).nonzero().T
        side = 2 ** (stages + 1) - 1
        assert int(rows.max() - rows.min()) + 1 == side and int(columns.max() - columns.min()) + 1 == side


def test_the_critic_is_shown_the_source_with_both() -> None:
    """Real and generated pictures are judged beside their own source, by critic and generator alike."""
    model, data = pix2pix(dropout=0.0)

    class Asked(nn.Module):
        """Keeps what it was shown."""

        def __init__(self, critic: nn.Module) -> None:
            super().__init__()
            self.critic, self.shown = critic, list[tuple[Tensor, Tensor]]()

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            self.shown.append((x.detach(), c))
            return self.critic(x, c)

    model.critic = Asked(model.critic)
    model.criticise(data, Clock())
    model.generate(data, Clock())
    made = model.translate(data).detach()
    assert [torch.equal(x, y) for (x, _), y in zip(model.critic.shown, (data.x, made, made), strict=True)] == [True] * 3
    assert all(torch.equal(c, data.given["source"]) for _, c in model.critic.shown)


def test_the_dropout_is_on_in_training_and_where_noise_is_asked_for() -> None:
    model, data = pix2pix(dropout=0.5)
    given = replace(data, x=None)
    assert not torch.equal(model.train().translate(data), model.translate(data))
    model.eval()
    still = model.translate(data)
    assert torch.equal(still, model.translate(data)) and torch.equal(still, model.sample(6, given))
    draws = [model.sample(6, given, noise=True) for _ in range(2)]
    assert not torch.equal(*draws)
    sure, _ = pix2pix(dropout=0.0)
    assert torch.equal(sure.sample(6, given, noise=True), sure.sample(6, given))


def test_an_example_without_its_source_counts_in_nothing() -> None:
    """With the last two sources absent the losses are 4/6 of those of the first four, whatever stands there."""
    model, data = pix2pix(dropout=0.0)
    first = Batch(data.x[:4], given={"source": data.given["source"][:4]})
    absent = {"source": torch.arange(6) >= 4}
    for phase in model.phases():
        terms, fewer = phase.loss(replace(data, absent=absent), Clock()), phase.loss(first, Clock())
        assert loss_of(terms) == pytest.approx(4 / 6 * loss_of(fewer), rel=1e-5)
        assert all(float(part[4:].abs().max()) == 0 for part in terms.parts.values())


def test_weights_follow_their_schedules() -> None:
    ramp = {"name": "linear", "epochs": 10}
    half, end = Clock(epoch=torch.tensor(5.0)), Clock.final()
    model, data = pix2pix(l1_schedule=ramp, dropout=0.0)
    losses = [model.generate(data, clock) for clock in (half, end)]
    l1 = float(losses[0].parts["l1"].mean())
    assert loss_of(losses[1]) - loss_of(losses[0]) == pytest.approx(50 * l1, rel=1e-4)
    assert float(losses[0].scalars["l1_weight"]) == 50
    both, pair = cycle_gan(cycle_schedule=ramp, identity=2.0, identity_schedule=ramp)
    losses = [both.generate(pair, clock) for clock in (half, end)]
    parts = {name: float(part.mean()) for name, part in losses[0].parts.items()}
    more = 5 * (parts["cycle_a"] + parts["cycle_b"]) + 1 * (parts["identity_a"] + parts["identity_b"])
    assert loss_of(losses[1]) - loss_of(losses[0]) == pytest.approx(more, rel=1e-4)
    assert [p.scheduled for m in (model, both) for p in m.phases()] == [False, True, False, True]


def test_a_history_gives_back_one_in_two_and_loses_none() -> None:
    """Kept and given back together are what was kept and what came; half of the examples are older ones."""
    history = History(50, (1,))
    with rng.forked("cpu", 3):
        while not bool(history.filled.all()):
            new = torch.rand(8, 1)
            before, known = history.kept.clone(), float(history.filled.sum())
            out = history(new)
            assert float(history.filled.sum()) >= known
            if known == 0:
                assert torch.equal(out, new)
        older = 0
        for step in range(400):
            before, new = history.kept.clone(), torch.rand(8, 1) + step
            out = history(new)
            together = torch.cat([history.kept, out]).flatten().sort().values
            assert torch.equal(together, torch.cat([before, new]).flatten().sort().values)
            older += int((out != new).sum())
    n = 400 * 8
    assert abs(older - n / 2) < 4 * math.sqrt(n / 4)
    kept = history.kept.clone()
    assert torch.equal(history.eval()(new), new) and torch.equal(history.kept, kept)
    assert len(History(2, (1,))(torch.rand(5, 1))) == 5


def test_a_history_returns_its_input_until_it_is_full() -> None:
    torch.manual_seed(0)
    history = History(50, (1,))
    for step in range(50):
        new = torch.full((1, 1), float(step))
        assert torch.equal(history(new), new) and float(history.filled.sum()) == step + 1


def test_pix2pix_translates_rows() -> None:
    spec = Spec((3,), given={"tag": Spec((2,))})
    model = registry.build("pix2pix", spec, source="tag", net="mlp", critic="mlp")
    batch = Batch(torch.randn(5, 3), given={"tag": torch.randn(5, 2)}, absent={"tag": torch.arange(5) > 3})
    assert all(torch.isfinite(phase.loss(batch, Clock()).loss) for phase in model.phases())
    assert model.paired(batch).tolist() == [1, 1, 1, 1, 0] and model.translate(batch).shape == (5, 3)


def test_the_critics_see_the_history() -> None:
    """A translation of long ago is scored again: with a generator that has changed the loss is another."""
    model, data = cycle_gan(history=6)
    plain, _ = cycle_gan()
    for m in (model, plain):
        m.criticise(data, Clock())
        for translator in m.generators.values():
            pointwise(translator, -1.0)
    with rng.forked("cpu", 1):
        losses = [loss_of(m.criticise(data, Clock())) for m in (model, plain)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("net", [SMALL, {"name": "mlp", "widths": [8]}, {"name": "vit", "width": 8, "depth": 1}])
def test_a_translator_is_of_every_family(net: dict[str, Any]) -> None:
    """Sources of another size and channels, and what is put out in the range of the target."""
    made = Translator(registry.resolve("net", net), Spec((1, 9, 7), "unit"), Spec((3, 12, 17), "unit"), 0.1)
    y = made(torch.rand(2, 1, 9, 7)).detach()
    assert y.shape == (2, 3, 12, 17) and 0 <= float(y.min()) and float(y.max()) <= 1
    assert bool(torch.isfinite(made(torch.randint(0, 2, (2, 1, 9, 7)).float())).all())


@pytest.mark.parametrize(
    ("name", "spec", "options", "words"),
    [
        ("pix2pix", Spec(SHAPE, "unit"), {}, "no companion 'source'"),
        ("pix2pix", Spec(SHAPE, "unit", given={"source": Spec((5,))}), {}, "two pictures or two rows"),
        ("pix2pix", None, {"source": "labels"}, "'labels' is none"),
        ("pix2pix", None, {"adversary": "cross-entropy"}, "adversary is one of"),
        ("pix2pix", None, {"dropout": 1.0}, "dropout"),
        ("pix2pix", None, {"l1": -1.0}, "l1"),
        ("cycle-gan", Spec(SHAPE, "unit"), {}, "second set of examples named 'b'"),
        ("cycle-gan", Spec(SHAPE, "unit", beside={"b": Spec((3, 8, 8), "unit")}), {"identity": 1.0}, "of one shape"),
        ("cycle-gan", None, {"history": -1}, "history"),
        ("cycle-gan", None, {"cycle": math.inf}, "cycle"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, spec: Spec | None, options: dict[str, Any], words: str) -> None:
    usual = Spec(SHAPE, "unit", given={"source": Spec(SHAPE, "unit")}, beside={"b": Spec(SHAPE, "unit")})
    with pytest.raises(ConfigError, match=words) as refused:
        registry.build(name, spec or usual, **options)
    assert "\n" not in str(refused.value)


def test_directions_and_sources_that_are_not_there_are_refused() -> None:
    model, data = pix2pix()
    with pytest.raises(ConfigError, match="not to 'b'"):
        model.translate(data, "b")
    with pytest.raises(ConfigError, match="conditioned on"):
        model.translate(Batch(data.x))
    both, pair = cycle_gan()
    with pytest.raises(ConfigError, match="not to 'c'"):
        both.translate(pair, "c")
    with pytest.raises(ConfigError, match="none were given"):
        both.sample(6)
    with pytest.raises(ConfigError, match="5 examples were asked for, and 6"):
        both.sample(5, pair)


def test_translation_errors_are_closed_forms() -> None:
    """Of translations that add 1/4 or halve, and of models with one and with two domains."""
    from sandglass.data.dataset import Split
    from sandglass.metrics.measure import measure

    picture = Spec((1, 2, 2), "unit")
    paired = registry.build("pix2pix", replace(picture, given={"source": picture}), net="mlp", critic="mlp")
    source, x = torch.rand(40, 1, 2, 2), torch.rand(40, 1, 2, 2)
    paired.generator.forward = lambda s, noise=False: s + 0.25  # type: ignore[method-assign, assignment]
    (found,) = measure(paired, Split(x, given={"source": source}), names=["translation"])
    expected = (source + 0.25 - x).abs().flatten(1).mean(1)
    assert found.value == pytest.approx(float(expected.mean())) and found.n == 40
    assert torch.allclose(found.each.float(), expected)  # type: ignore[union-attr]

    both = registry.build("cycle-gan", replace(picture, beside={"b": picture}), net="mlp", critic="mlp")
    both.generators["b"].forward = lambda a: a / 2  # type: ignore[method-assign, assignment]
    both.generators["a"].forward = lambda b: b + 0.25  # type: ignore[method-assign, assignment]
    b = torch.rand(30, 1, 2, 2)
    there, back = measure(both, Split(x, beside={"b": Split(b)}), names=["translation"])
    assert (there.name, there.n, back.name, back.n) == ("cycle_mae", 40, "cycle_mae_back", 30)
    assert there.value == pytest.approx(float((x / 2 + 0.25 - x).abs().mean()), rel=1e-5)
    assert back.value == pytest.approx(float(((b + 0.25) / 2 - b).abs().mean()), rel=1e-5)
