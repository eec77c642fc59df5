"""CycleGAN: between two kinds of examples and back, learnt without pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.errors import ConfigError
from sandglass.models._adversary import OPTIM, Adversary, AdversaryName
from sandglass.models._translator import History, PatchCritic, Translator, each, error
from sandglass.registry import NetOption, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight

_OTHER = {"a": "b", "b": "a"}


@register("cycle-gan")
class CycleGAN(Model):
    """CycleGAN: generators between two kinds of examples, learnt without pairs from critics and from coming back.

    Zhu, Park, Isola and Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks"
    (arXiv 1703.10593). Kind a is the data itself, kind b the set beside it of the name ``b``, which may have other
    channels and another size. A generator each way is trained to fool the critic of the kind it makes, and both
    together to return every example: ``adversarial losses + cycle * (|G_a(G_b(a)) - a| + |G_b(G_a(b)) - b|)``, and
    with an identity weight ``identity * (|G_a(a) - a| + |G_b(b) - b|)``, each a mean absolute difference.

    All players use Adam with learning rate 2e-4 and betas (0.5, 0.999) unless the run sets a learning rate. No loss of
    a GAN can choose the best weights, so the last are kept. The data must be complete.

    Args:
        spec: the data; its ``beside["b"]`` is the other kind.
        cycle: weight of the cycle error. The paper's 10 is for pictures in [-1, 1] and comes to 20 for those in [0, 1].
        cycle_schedule: what it is multiplied by over time.
        identity: weight of the error of translating what is already of the kind; it keeps colours, and needs both kinds
            in one shape. 0 as in most of the paper, half of ``cycle`` as for its paintings.
        identity_schedule: what it is multiplied by over time.
        adversary: ``least-squares``, ``non-saturating`` or ``hinge``.
        history: how many earlier translations of each kind the critics also see, as in the paper, whose batches are of
            one example; 0 for none.
        net: network family of the generators; auto is conv for images and mlp for rows.
        critic: network family of the critics; its number of stages makes the size of a patch, see
            :class:`~sandglass.models._translator.PatchCritic`.

    Raises:
        ConfigError: no set ``b`` beside the data, or a value that makes no sense.

    Example:
        >>> spec = Spec((1, 8, 8), "unit", beside={"b": Spec((3, 9, 7), "unit")})
        >>> model = CycleGAN(spec).eval()
        >>> x = torch.rand(5, 1, 8, 8)
        >>> model.translate(x).shape, model.translate(torch.rand(2, 3, 9, 7), to="a").shape, model.reconstruct(x).shape
        (torch.Size([5, 3, 9, 7]), torch.Size([2, 1, 8, 8]), torch.Size([5, 1, 8, 8]))
    """

    provides = ("translate", "reconstruct")
    needs = ("complete", "beside:b")

    def __init__(
        self,
        spec: Spec,
        *,
        cycle: float = 10.0,
        cycle_schedule: ScheduleOption = "constant",
        identity: float = 0.0,
        identity_schedule: ScheduleOption = "constant",
        adversary: AdversaryName = "least-squares",
        history: int = 0,
        net: NetOption = "auto",
        critic: NetOption = "auto",
    ) -> None:
        super().__init__()
        if "b" not in spec.beside:
            raise ConfigError("A CycleGAN needs a second set of examples, 'b', beside the data.")
        kinds = {"a": spec, "b": spec.beside["b"]}
        if identity and kinds["a"].shape != kinds["b"].shape:
            shapes = " and ".join(str(kind.shape) for kind in kinds.values())
            raise ConfigError(f"An identity weight needs both kinds in one shape, not {shapes}; set identity to 0.")
        self.spec, self.adversary = spec, Adversary(adversary)
        self.cycle = Weight("cycle", cycle, cycle_schedule)
        self.identity = Weight("identity", identity, identity_schedule)
        nets = [resolve("net", choice, spec=spec) for choice in (net, critic)]
        self.generators = nn.ModuleDict({to: Translator(nets[0], kinds[_OTHER[to]], kinds[to]) for to in kinds})
        self.critics = nn.ModuleDict({kind: PatchCritic(nets[1], kinds[kind]) for kind in kinds})
        self.history = nn.ModuleDict({kind: History(history, kinds[kind].shape) for kind in kinds})

    def phases(self) -> Sequence[Phase]:
        """The turn of both critics, then that of both generators."""
        moves = self.cycle.moves or self.identity.moves
        return (
            Phase("critics", (self.critics, self.history), self.criticise, optim=OPTIM, scheduled=False),
            Phase("generators", (self.generators,), self.generate, optim=OPTIM, scheduled=moves),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The critics' loss: to score real examples of their kind high and translations to it low."""
        real = self.both(batch)
        losses = {}
        for kind, x in real.items():
            with torch.no_grad():
                made = self.history[kind](self.generators[kind](real[_OTHER[kind]]))
            losses[kind] = each(self.adversary.critic(self.critics[kind](x), self.critics[kind](made)))
        parts = {f"critic_{kind}": loss.detach() for kind, loss in losses.items()}
        return Terms(losses["a"].mean() + losses["b"].mean(), parts)

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The generators' loss: to have translations scored high, and to come back to where they began."""
        real = self.both(batch)
        made = {to: self.generators[to](real[_OTHER[to]]) for to in real}
        losses = {f"adversary_{to}": each(self.adversary.generator(self.critics[to](x))) for to, x in made.items()}
        loss = losses["adversary_a"].mean() + losses["adversary_b"].mean()
        errors = {f"cycle_{to}": error(self.generators[to](made[_OTHER[to]]), x) for to, x in real.items()}
        loss = loss + self.cycle(clock) * (errors["cycle_a"].mean() + errors["cycle_b"].mean())
        if self.identity.value:
            errors |= {f"identity_{to}": error(self.generators[to](x), x) for to, x in real.items()}
            loss = loss + self.identity(clock) * (errors["identity_a"].mean() + errors["identity_b"].mean())
        scalars = self.cycle.scalar(clock, "cycle_weight") | self.identity.scalar(clock, "identity_weight")
        return Terms(loss, {name: part.detach() for name, part in (losses | errors).items()}, scalars)

    def both(self, batch: Batch) -> dict[str, Tensor]:
        """``(B, *shape)`` and ``(B', *shape)``, the examples of both kinds.

        Raises:
            ConfigError: the batch has no set beside.
        """
        return {"a": batch.x, "b": self.beside(batch)}

    def beside(self, batch: Batch | None) -> Tensor:
        """``(B', *shape)`` examples of kind b.

        Raises:
            ConfigError: there are none.
        """
        if batch is None or "b" not in batch.beside:
            raise ConfigError("This model translates examples of the set 'b' beside it, and they were not given.")
        return batch.beside["b"].x

    def translate(self, batch: Batch, to: str | None = None) -> Tensor:
        """``(B, *shape of that kind)`` translations; the same for the same examples.

        Args:
            batch: with examples of the other kind as its x.
            to: ``"b"``, also when not given; or ``"a"``, or ``"x"`` for the same.

        Raises:
            ConfigError: another kind.
        """
        if to not in (None, "a", "b", "x"):
            raise ConfigError(f"A CycleGAN translates to b, or to a (also named x), not to '{to}'.")
        translated: Tensor = self.generators["a" if to in ("a", "x") else "b"](batch.x)
        return translated

    def reconstruct(self, batch: Batch) -> Tensor:
        """``(B, *shape)`` examples of kind a translated to b and back."""
        back: Tensor = self.generators["a"](self.translate(batch))
        return back

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` translations to a of given examples of b, ``given.beside["b"]``; nothing is drawn at random.

        Raises:
            ConfigError: none are given, or another number.
        """
        source = self.beside(given)
        if len(source) != n:
            raise ConfigError(f"{n} examples were asked for, and {len(source)} of the set 'b' were given.")
        made: Tensor = self.generators["a"](source)
        return made
