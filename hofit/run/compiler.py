"""Keep torch from importing its compiler where nothing is compiled: that takes seconds, a small fit takes a fraction.

Some second derivatives (of `abs`, and so of a binomial's log density) are tensors that torch knows to be zero; adding
one runs a decomposition that is marked "never compile", and the mark itself imports the compiler.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..internals import NEVER_COMPILED, reference_add


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Inside, the decomposition of an addition is called as it is. Nothing happens where the compiler is loaded."""
    marked = [] if "torch._dynamo" in sys.modules else _never_compiled(reference_add)
    for function in marked:
        setattr(function, NEVER_COMPILED, function)
    try:
        yield
    finally:
        for function in marked:
            delattr(function, NEVER_COMPILED)


def _never_compiled(function: Any) -> list[Any]:
    """The functions under a wrapper that torch marks when they are first called."""
    found = []
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        if function.__code__.co_filename.endswith("_compile.py") and not hasattr(inner, NEVER_COMPILED):
            found.append(inner)
        function = inner
    return found
