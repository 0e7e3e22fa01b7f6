"""The formula's names as names of Python and of sites: ``C(period)[2]`` is ``period_2``, ``a:b`` is ``a_b``."""

from __future__ import annotations

import keyword
import re

LOCALS = (
    *("like", "fitted", "columns", "groups", "functions", "design", "start", "every", "levels", "name", "formula"),
    *("X", "beta", "eta", "mean", "offset", "rows", "table", "path", "matrix", "model", "load_data", "base"),
    *("np", "pd", "pyro", "torch", "dist", "constraints", "Tensor", "Path", "design_matrices", "cutpoints", "df"),
    *("sigma", "phi", "shape", "zero_X", "zero_beta", "zero_eta", "dispersion_X", "dispersion_beta"),
    *("coefficient", "positive", "cholesky_factor", "zip", "len", "float", "list", "dict", "int", "str", "object"),
)
"""What the written module calls so itself."""

CODING = re.compile(r"\b[CTS]\(\s*(\w+)[^()]*\)")
"""What says how a column is coded, and not which it is."""

INTERCEPT = "Intercept"


def identifier(label: str) -> str:
    """A label of the library's, or a column's name, as a word."""
    if label == INTERCEPT:
        return "intercept"
    plain = re.sub(r"\bI\(([^()]*)\)", r"\1", CODING.sub(r"\1", label))
    word = re.sub(r"\W+", "_", plain).strip("_") or "term"
    return f"_{word}" if word[0].isdigit() else word


class Names:
    """Names that are given once each."""

    def __init__(self, taken: tuple[str, ...] = ()) -> None:
        self.taken = set(taken)

    def claim(self, wanted: str) -> str:
        """This name, or with a sign after it where something has it."""
        name = f"{wanted}_" if keyword.iskeyword(wanted) else wanted
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
