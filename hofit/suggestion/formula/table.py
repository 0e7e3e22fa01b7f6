"""The columns that a formula names, in a file of data; what is wrong with them is said before anything is written."""

from __future__ import annotations

import contextlib
import difflib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, DataError
from .scanning import Token, wrong

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

NUMPY = ("abs", "cos", "exp", "expm1", "log", "log10", "log1p", "log2", "sin", "sqrt", "tan")
"""Functions of numpy that a formula may call by their name alone, as in R."""

INSTEAD = {
    "cbind": "p(k, n), left of the ~",
    "ns": "cr(x, df=4), a natural cubic spline, or bs(x, df=4)",
    "s": "cr(x, df=4), without a penalty",
    "relevel": "T(x, ref='level')",
    "ordered": "C(x)",
    "Offset": "offset(x)",
}
"""R's functions that go by another name, and what to write."""

SHOWN = 12
"""Columns that an error names."""


def read_method(path: Path) -> str:
    """The function of pandas that reads such a file."""
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return "read_csv"
    if name.endswith(".parquet"):
        return "read_parquet"
    raise DataError(f"{path}: with --formula a data file ends in .csv, .csv.gz or .parquet")


def read(path: Path) -> pd.DataFrame:
    """Raises: DataError."""
    import pandas as pd

    reader = getattr(pd, read_method(path))
    if not path.is_file():
        raise DataError(f"no data file {path}")
    try:
        table: pd.DataFrame = reader(path)
    except Exception as error:
        raise DataError(f"{path} cannot be read by pandas.{reader.__name__}: {error}") from error
    if len(table) == 0:
        raise DataError(f"{path} is empty: it has no rows")
    return table


def columns_of(formula: str, tokens: list[Token], table: pd.DataFrame, path: Path, option: str) -> list[str]:
    """The columns that are named in it, in its order. Raises: ConfigError where one is not there, with near misses."""
    from formulae.categorical import ENCODINGS

    found: dict[str, None] = {}
    for k, token in enumerate(tokens):
        name = token.text.strip("`")
        after = tokens[min(k + 1, len(tokens) - 1)].kind
        keyword = after == "EQUAL"
        if token.kind not in ("IDENTIFIER", "BQNAME") or keyword or name in ENCODINGS or name.startswith("np."):
            continue
        if token.kind == "IDENTIFIER" and after == "LEFT_PAREN":
            _check_function(formula, token, option)
        elif name not in table.columns:
            raise wrong(formula, token.start, f"{path} has no column {name!r}; {_near(name, table.columns)}", option)
        else:
            found[name] = None
    return list(found)


def functions_of(tokens: Iterable[Token]) -> list[str]:
    """The functions of numpy that are called by their name alone."""
    return sorted({token.text for token in tokens if token.kind == "IDENTIFIER" and token.text in NUMPY})


def matrix(formula: str, table: pd.DataFrame) -> tuple[Array, list[str]]:
    """A right side's design matrix, (rows, columns), and the library's labels of the columns. Raises: ConfigError."""
    from formulae import design_matrices

    functions = {name: getattr(np, name) for name in NUMPY}
    try:
        # The library prints where it raises, and warns of what only its own next version will do.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            common = design_matrices(formula, table, na_action="error", extra_namespace=functions).common
    except Exception as error:
        raise ConfigError(f"--formula: {formula!r} cannot be computed from the data: {error}") from error
    if common is None:
        return np.zeros((len(table), 0)), []
    labels = [str(label) for term in common.terms.values() for label in term.labels]
    return np.asarray(common.design_matrix, dtype=float), labels


def codes(table: pd.DataFrame, factors: Iterable[str]) -> tuple[Array, int]:
    """The group of each row, numbered in sorted order, and how many there are."""
    found = table.groupby(list(factors)).ngroup().to_numpy()
    return found, int(found.max()) + 1


def where(path: Path, table: pd.DataFrame, place: int) -> str:
    """How a row is called. The header of a file of lines is its first."""
    row = int(table.index[place])
    return f"row {row + 1} ({path}{f':{row + 2}' if path.name.lower().endswith('.csv') else ''})"


def _check_function(formula: str, token: Token, option: str) -> None:
    from formulae.transforms import TRANSFORMS

    known = [*TRANSFORMS, *NUMPY]
    if token.text in known:
        return
    if token.text in INSTEAD:
        raise wrong(formula, token.start, f"there is no {token.text}() here: write {INSTEAD[token.text]}", option)
    near = difflib.get_close_matches(token.text, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known))}"
    raise wrong(formula, token.start, f"there is no function {token.text}(); {hint}", option)


def _near(name: str, columns: Iterable[Any]) -> str:
    names = [str(column) for column in columns]
    folded = {one.lower(): one for one in names}
    near = [folded[one] for one in difflib.get_close_matches(name.lower(), folded, 3)]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"its columns are {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
