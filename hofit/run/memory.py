"""How the C library handles the large temporaries of a big model."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE, _NEVER = 1 << 30, -1


@cache
def keep_large_temporaries() -> None:
    """Let glibc keep freed memory up to a gigabyte a piece instead of handing every large tensor back to the system.

    By default each tensor above 32 MB is mapped anew and its pages are zeroed again, operation after operation: on a
    model with a million rows that is most of an iteration. It is a setting of the whole process and changes no result.
    Other C libraries and systems are left alone. Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
