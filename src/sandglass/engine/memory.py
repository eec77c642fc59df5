"""Memory of the process: what a step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>


@cache
def keep_freed() -> bool:
    """Has the allocator of glibc keep freed memory instead of giving it back to the system, once in a process.

    Every step of a training needs as much as the last; fresh pages that the system has to clear cost up to a quarter
    of the time of a convolution on a CPU. Values do not depend on it.

    Returns:
        Whether it is done; other systems have other allocators.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_MMAP, 2**30), mallopt(_TRIM, 2**31 - 1)])
