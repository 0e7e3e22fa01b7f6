"""What to show of an error that was raised inside the user's model: the user's own frames."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_OWN = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple(
    folder + os.sep
    for folder in (
        _OWN,
        *(sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib", "platstdlib")),
        str(Path(torch.__file__).resolve().parents[1]),
    )
)


def user_fault(error: BaseException) -> str:
    """``Type: message`` and below it the frames that are the user's: file, line, function and source."""
    lines = [f"{type(error).__name__}: {_brief(error)}"]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append(f"  {error.filename}:{error.lineno}: {(error.text or '').strip()}")
    for frame in traceback.extract_tb(error.__traceback__):
        if not is_library_file(frame.filename):
            lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}")
    return "\n".join(lines)


def hint(error: BaseException) -> str:
    """What to do about an error whose own text leads astray; empty where it does not."""
    if isinstance(error, (RuntimeError, TypeError)) and "requires grad" in str(error) and "numpy" in str(error):
        return (
            "\n  A fit needs the gradient through this value, and a detached one has none: compute it by functions of "
            "torch in the place of numpy's"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"\n  Install it beside hofit (pip install {error.name}), or mend the import"
    if isinstance(error, FileNotFoundError):
        return (
            "\n  Paths are relative to where hofit runs: write Path(__file__).parent / …, or take the argument `path`"
        )
    if isinstance(error, NotImplementedError) and "Cannot transform str constraints" in str(error):
        return (
            "\n  A constraint is an object, not its name: from torch.distributions import constraints, then "
            "constraint=constraints.positive"
        )
    if isinstance(error, AttributeError) and "object has no attribute 'contiguous'" in str(error):
        return '\n  The start of a pyro.param is a tensor: pyro.param("name", torch.tensor(1.0))'
    if isinstance(error, RuntimeError) and "tensors of floating point dtype" in str(error).lower():
        return "\n  What is fitted is a floating number: write the start with a point, torch.tensor(1.0)"
    if isinstance(error, RuntimeError) and "operator" in str(error) and "bool tensor" in str(error):
        return (
            "\n  A density takes yes and no as numbers: y.double() in the place of y, or `dtype: float` of the column"
        )
    if isinstance(error, KeyError) and _in_pyro_param(error):
        return '\n  A pyro.param needs a start where it is first named: pyro.param("name", torch.tensor(1.0))'
    if isinstance(error, RuntimeError) and any(words in str(error) for words in SHAPES):
        return (
            "\n  Print the shapes there: a number a row has shape (rows,); x @ beta takes x (rows, columns) and beta "
            "(columns,)"
        )
    return ""


def _in_pyro_param(error: BaseException) -> bool:
    """Whether Pyro's parameter store raised it, which knows no parameter of that name."""
    return Path(_last_file(error.__traceback__)).parts[-2:] == ("params", "param_store.py")


SHAPES = ("The size of tensor a", "shapes cannot be multiplied", "size mismatch", "not broadcastable", "expanded size")
"""What torch says of shapes that do not fit."""


def refused(error: BaseException, missing: str = "") -> str:
    """The first line of what a distribution refused, with the edit where it is known.

    ``missing`` says of a value with nan what is to be done about it.
    """
    text = str(error).strip().split("\n")[0].removesuffix(", but found invalid values:")
    if "to be within the support" in text and missing:
        return f"{text}; {missing}"
    if "to satisfy the constraint" in text and "GreaterThan" in text:
        return f"{text}; keep it there: pyro.param(…, constraint=constraints.positive)"
    if "to be within the support" in text:
        return f"{text}; mend the data that lie outside, or take a distribution that has them"
    return text


def missing_values(message: Any) -> str:
    """What to do about nan in what a site observes; empty where there is none."""
    value = message["value"]
    if not isinstance(value, Tensor) or not value.is_floating_point() or not bool(value.isnan().any()):
        return ""
    if message["mask"] is None and getattr(message["fn"], "_mask", None) is None:
        return (
            "it has nan, which is no value: leave such rows out (`data.missing: drop` of a table), or mask them and "
            "put a number in their place"
        )
    return (
        "it has nan, which a mask leaves out of the density but not of its gradient: put a number in its place too, "
        "torch.nan_to_num(y), and keep the mask"
    )


def user_place(error: BaseException) -> str:
    """``file:line: source`` of the last frame that is the user's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library_file(f.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "no frame of the model's"


def place_of_call() -> str:
    """``file:line`` of the innermost frame that is the user's, of the call under way; empty where there is none."""
    frames = [frame for frame in traceback.extract_stack() if not is_library_file(frame.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def raised_inside_distribution(error: BaseException) -> bool:
    """Whether the last frame of the traceback is torch's or Pyro's distribution code."""
    last = _last_file(error.__traceback__)
    return "distributions" in Path(last).parts and is_library_file(last)


def is_library_file(filename: str) -> bool:
    return filename.startswith(("<", *_LIBRARIES))


def _last_file(tb: TracebackType | None) -> str:
    name = ""
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        tb = tb.tb_next
    return name


def _brief(error: BaseException, longest: int = 600) -> str:
    text = str(error).strip()
    return text if len(text) <= longest else text[:longest] + " …"
