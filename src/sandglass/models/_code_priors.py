"""The networks that can be the prior over codes."""

from __future__ import annotations

import math
from typing import Any, Literal

from sandglass.errors import ConfigError
from sandglass.models._code_prior import CodePrior, OneCode, check_prior
from sandglass.models._pixel_cnn import PixelCNN
from sandglass.models._transformer_prior import TransformerPrior
from sandglass.nets.net import Condition, Net


def code_prior(
    size: int,
    shape: tuple[int, ...],
    cond: Condition = 0,
    net: Net | None = None,
    above: tuple[tuple[int, tuple[int, ...]], ...] = (),
    single: bool = True,
    *,
    prior_net: Literal["transformer", "pixelcnn"] = "transformer",
    prior_width: int = 128,
    prior_depth: int = 4,
    prior_heads: int = 4,
    prior_dropout: float = 0.1,
) -> CodePrior:
    """A prior over maps of codes.

    Args:
        size: K, how many values a code has.
        shape: of the map.
        cond: what it is conditioned on.
        net: the family of the network that reads a picture condition.
        above: by level from the top, the values of a code and the shape of the map; codes that it is given, too.
        single: whether a code alone has a table in the place of a transformer; VQ-VAEs are saved with the latter.
        prior_net: the network that is the prior over codes: a causal transformer, or a PixelCNN of gated convolutions;
            a map of one code has a table, but for the transformer of a model with one map.
        prior_width: its width.
        prior_depth: its blocks or layers.
        prior_heads: of the attention of the transformer; they divide its width.
        prior_dropout: dropout probability in training.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> code_prior(5, (2, 2), prior_width=8, prior_heads=2)().sample((3,)).shape
        torch.Size([3, 4])
    """
    if prior_net not in ("transformer", "pixelcnn"):
        raise ConfigError(f"The prior_net is one of transformer, pixelcnn, not '{prior_net}'.")
    if math.prod(shape) == 1 and (single or prior_net != "transformer"):
        check_prior(prior_width, prior_depth, prior_dropout, prior_heads if prior_net == "transformer" else None)
        return OneCode(size, shape, cond, net, above, width=prior_width)
    own: dict[str, Any] = {"width": prior_width, "depth": prior_depth, "dropout": prior_dropout}
    if prior_net == "pixelcnn":
        return PixelCNN(size, shape, cond, net, above, **own)
    return TransformerPrior(size, shape, cond, net, above, **own, heads=prior_heads)
