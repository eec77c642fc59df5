"""CycleGAN: unpaired translation between two domains."""

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
    """CycleGAN: generators between two domains, trained without pairs by critics and cycle consistency.

    Zhu, Park, Isola and Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks"
    (arXiv 1703.10593). Domain a is the data itself, domain b the unpaired set of that name, which may have another
    number of channels and another size. The generator into each domain is trained against the critic of that domain,
    and both together to reconstruct every example: ``adversarial losses + cycle * (|G_a(G_b(a)) - a| + |G_b(G_a(b)) -
    b|)``, and with an identity weight ``identity * (|G_a(a) - a| + |G_b(b) - b|)``, each a mean absolute difference.

    All networks use Adam with learning rate 2e-4 and betas (0.5, 0.999) unless the run sets a learning rate. No loss of
    a GAN can choose the best weights, so the last are kept. The data must have no missing values.

    Args:
        spec: the data; ``spec.beside["b"]`` is domain b.
        cycle: weight of the cycle error. The paper's 10, for pictures in [-1, 1], corresponds to 20 for [0, 1].
        cycle_schedule: schedule of that weight.
        identity: weight of the identity error, of translating an example into its own domain; it preserves colours and
            needs domains of one shape. The paper has 0, and half of ``cycle`` for paintings.
        identity_schedule: schedule of that weight.
        adversary: ``least-squares``, ``non-saturating`` or ``hinge``.
        history: number of earlier translations of each domain that are also shown to its critic, as in the paper, which
            has batches of one example; 0 for none.
        net: network family of the generators; auto is conv for images and mlp for rows.
        critic: network family of the critics; its number of stages sets the size of a patch, see
            :class:`~sandglass.models._translator.PatchCritic`.

    Raises:
        ConfigError: the data has no unpaired set ``b``, or an invalid value.

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
            raise ConfigError("A CycleGAN needs a second set of examples named 'b': give it with --beside b=SOURCE.")
        kinds = {"a": spec, "b": spec.beside["b"]}
        if identity and kinds["a"].shape != kinds["b"].shape:
            shapes = " and ".join(str(kind.shape) for kind in kinds.values())
            raise ConfigError(f"An identity weight needs domains of one shape, not {shapes}; set identity to 0.")
        self.spec, self.adversary = spec, Adversary(adversary)
        self.cycle = Weight("cycle", cycle, cycle_schedule)
        self.identity = Weight("identity", identity, identity_schedule)
        nets = [resolve("net", choice, spec=spec) for choice in (net, critic)]
        self.generators = nn.ModuleDict({to: Translator(nets[0], kinds[_OTHER[to]], kinds[to]) for to in kinds})
        self.critics = nn.ModuleDict({kind: PatchCritic(nets[1], kinds[kind]) for kind in kinds})
        self.history = nn.ModuleDict({kind: History(history, kinds[kind].shape) for kind in kinds})

    def phases(self) -> Sequence[Phase]:
        """The update of both critics, then that of both generators."""
        moves = self.cycle.moves or self.identity.moves
        return (
            Phase("critics", (self.critics, self.history), self.criticise, optim=OPTIM, scheduled=False),
            Phase("generators", (self.generators,), self.generate, optim=OPTIM, scheduled=moves),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critics, on real examples and translations of each domain."""
        real = self.both(batch)
        losses = {}
        for kind, x in real.items():
            with torch.no_grad():
                made = self.history[kind](self.generators[kind](real[_OTHER[kind]]))
            losses[kind] = each(self.adversary.critic(self.critics[kind](x), self.critics[kind](made)))
        parts = {f"critic_{kind}": loss.detach() for kind, loss in losses.items()}
        return Terms(losses["a"].mean() + losses["b"].mean(), parts)

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the generators: adversarial, cycle and identity terms."""
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
        """``(B, *shape)`` and ``(B', *shape)``, the examples of both domains.

        Raises:
            ConfigError: the batch has none of b.
        """
        return {"a": batch.x, "b": self.beside(batch)}

    def beside(self, batch: Batch | None) -> Tensor:
        """``(B', *shape)`` examples of domain b.

        Raises:
            ConfigError: there are none.
        """
        if batch is None or "b" not in batch.beside:
            raise ConfigError("This model translates examples of the set 'b', and none were given.")
        return batch.beside["b"].x

    def translate(self, batch: Batch, to: str | None = None) -> Tensor:
        """``(B, *shape)`` translations into a domain; deterministic in eval mode.

        Args:
            batch: its x are examples of the other domain.
            to: ``"b"``, the default, or ``"a"``, which ``"x"`` is another name of.

        Raises:
            ConfigError: another domain.
        """
        if to not in (None, "a", "b", "x"):
            raise ConfigError(f"A CycleGAN translates to b, or to a (also named x), not to '{to}'.")
        translated: Tensor = self.generators["a" if to in ("a", "x") else "b"](batch.x)
        return translated

    def reconstruct(self, batch: Batch) -> Tensor:
        """``(B, *shape)`` examples of domain a translated to b and back."""
        back: Tensor = self.generators["a"](self.translate(batch))
        return back

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` translations to a of the examples ``given.beside["b"]``; nothing is random.

        Raises:
            ConfigError: none are given, or not ``n``.
        """
        source = self.beside(given)
        if len(source) != n:
            raise ConfigError(f"{n} examples were asked for, and {len(source)} of the set 'b' were given.")
        made: Tensor = self.generators["a"](source)
        return made
