"""The depth of values: which part of their bits is used, and the range to give if it is a small one.

Without NumPy, since processes that decode pictures import it.
"""

from __future__ import annotations

from collections.abc import Mapping

COLOUR = "16-bit colour reduced to 8 bits"
"""The remark on a colour picture of more than 8 bits."""


def range_option(low: float, high: float) -> str:
    """How to give a range of values, in Python and on the command line.

    Example:
        >>> range_option(0, 4095)
        'value_range=(0, 4095) (--value-range 0,4095)'
    """
    words = [f"{v:.0f}" if v == round(v) else f"{v:.4g}" for v in (low, high)]
    return f"value_range=({', '.join(words)}) (--value-range {','.join(words)})"


def whole_top(high: int) -> int:
    """The largest value of the depth that a largest value above 255 suggests: 4095 for 3,900.

    Example:
        >>> whole_top(3900), whole_top(16)
        (4095, 16)
    """
    return 2 ** high.bit_length() - 1 if high > 255 else high


def grey_levels(value: int, top: int) -> int:
    """The grey level from 0 to 255 of a whole number from 0 to ``top``."""
    return (value * 510 + top) // (2 * top)


def unused(used: int, bits: int, what: str = "grey values") -> str:
    """The remark on a picture whose values need fewer bits than it has."""
    return f"{what} that need only {used} of {bits} bits"


def summed(remarks: Mapping[str, int]) -> dict[str, int]:
    """Counts of remarks, with those on bits that are not used made one; none if some pictures use all.

    Args:
        remarks: number of pictures by remark, see :func:`sandglass.data.sources.images.normal`.

    Example:
        >>> found = summed({"16-bit grey scaled to 8 bits": 3, unused(12, 16): 2, unused(11, 16): 1})
        >>> list(found.values())
        [3, 3]
    """
    found = dict(remarks)
    kinds = [("grey values", bits, scaled(bits)) for bits in range(9, 17)] + [("colours", 16, COLOUR)]
    for what, bits, deep in kinds:
        needed = {used: n for used in range(bits) if (n := found.pop(unused(used, bits, what), 0))}
        most, count = max(needed, default=0), sum(needed.values())
        if not most or count != found.get(deep):
            continue
        left = f"{grey_levels(2**most - 1, 2**bits - 1) + 1} of 256 levels are left"
        # Pillow reads colours with 8 bits whatever the range.
        how = f"{range_option(0, 2**most - 1)} uses all" + (" of an .npy array" if what == "colours" else "")
        found[f"{what} need only {most} of {bits} bits, so {left}; {how}"] = count
    return found


def scaled(bits: int) -> str:
    """The remark on a grey picture of more than 8 bits."""
    return f"{bits}-bit grey scaled to 8 bits"
