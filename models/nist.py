"""The 27 nonlinear regression problems of the NIST Statistical Reference Datasets.

    y_i ~ Normal(f(x_i; b), σ),   f by the problem's name: see MEANS

Parameters: `b` (p,), started at the problem's start 1 or 2, and `sigma` = σ, started at the root mean square of the
residuals there. At the mode b has the certified values, and σ² = RSS / n with the certified residual sum of squares.
Units are those of the problem.

`load_data` takes `name`, a key of MEANS, and `start`, 1 or 2.

Data: data/nist/*.dat; lines 41 to 58 hold starts and certified values, lines 61 on the data, the response first.
Reference: NIST/ITL, Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, atan, cos, exp, pi, sin
from torch.distributions import constraints


def model(name: str, x: Tensor, y: Tensor, b_start: Tensor, sigma_start: Tensor) -> None:
    b = pyro.param("b", b_start.clone())
    sigma = pyro.param("sigma", sigma_start.clone(), constraint=constraints.positive)
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Normal(MEANS[name](x, *b), sigma), obs=y)


def load_data(name: str = "Misra1a", start: int = 1) -> dict[str, str | Tensor]:
    """The model's arguments. Raises ValueError for a name that is no problem, or a start that is neither 1 nor 2."""
    problem = read_problem(name)
    if start not in (1, 2):
        raise ValueError(f"start {start!r}: a NIST problem has the starts 1 and 2")
    b_start = problem.starts[start - 1]
    sigma_start = (problem.y - MEANS[name](problem.x, *b_start)).square().mean().sqrt()
    return {"name": name, "x": problem.x, "y": problem.y, "b_start": b_start, "sigma_start": sigma_start}


@dataclass(frozen=True)
class Problem:
    """One file of the collection.

    Shapes: x (n,), for Nelson (n, 2); y (n,), for Nelson log y; starts (2, p); certified (p,).
    """

    x: Tensor
    y: Tensor
    starts: Tensor
    certified: Tensor
    residual_sum_of_squares: float


def read_problem(name: str) -> Problem:
    """The problem's data, starts and certified values. Raises ValueError for an unknown name."""
    if name not in MEANS:
        raise ValueError(f"no NIST problem {name!r}; there are {', '.join(MEANS)}")
    lines = (Path(__file__).parent / "data" / "nist" / f"{name}.dat").read_text().splitlines()
    header, rows = lines[40:58], lines[60:]

    # A parameter's line: b1 = start 1, start 2, certified value, its standard deviation.
    parameters = torch.tensor(
        [[float(number) for number in line.split("=")[1].split()] for line in header if line.strip().startswith("b")]
    )
    residual_sum_of_squares = next(float(line.split(":")[1]) for line in header if line.startswith("Residual Sum of"))
    y, *predictors = torch.tensor([[float(number) for number in row.split()] for row in rows if row.strip()]).T
    return Problem(
        x=torch.stack(predictors, -1).squeeze(-1),
        y=y.log() if name == "Nelson" else y,
        starts=parameters[:, :2].T,
        certified=parameters[:, 2],
        residual_sum_of_squares=residual_sum_of_squares,
    )


def lanczos(x: Tensor, b1: Tensor, b2: Tensor, b3: Tensor, b4: Tensor, b5: Tensor, b6: Tensor) -> Tensor:
    return b1 * exp(-b2 * x) + b3 * exp(-b4 * x) + b5 * exp(-b6 * x)


def gauss(
    x: Tensor, b1: Tensor, b2: Tensor, b3: Tensor, b4: Tensor, b5: Tensor, b6: Tensor, b7: Tensor, b8: Tensor
) -> Tensor:
    return b1 * exp(-b2 * x) + b3 * exp(-((x - b4) ** 2) / b5**2) + b6 * exp(-((x - b7) ** 2) / b8**2)


def cubic_ratio(
    x: Tensor, b1: Tensor, b2: Tensor, b3: Tensor, b4: Tensor, b5: Tensor, b6: Tensor, b7: Tensor
) -> Tensor:
    return (b1 + b2 * x + b3 * x**2 + b4 * x**3) / (1 + b5 * x + b6 * x**2 + b7 * x**3)


def southern_oscillation(
    x: Tensor,
    b1: Tensor,
    b2: Tensor,
    b3: Tensor,
    b4: Tensor,
    b5: Tensor,
    b6: Tensor,
    b7: Tensor,
    b8: Tensor,
    b9: Tensor,
) -> Tensor:
    year, first, second = 2 * pi * x / 12, 2 * pi * x / b4, 2 * pi * x / b7
    return (
        b1
        + (b2 * cos(year) + b3 * sin(year))
        + (b5 * cos(first) + b6 * sin(first))
        + (b8 * cos(second) + b9 * sin(second))
    )


MEANS: dict[str, Callable[..., Tensor]] = {  # called as f(x, b1, b2, …)
    "Bennett5": lambda x, b1, b2, b3: b1 * (b2 + x) ** (-1 / b3),
    "BoxBOD": lambda x, b1, b2: b1 * (1 - exp(-b2 * x)),
    "Chwirut1": lambda x, b1, b2, b3: exp(-b1 * x) / (b2 + b3 * x),
    "Chwirut2": lambda x, b1, b2, b3: exp(-b1 * x) / (b2 + b3 * x),
    "DanWood": lambda x, b1, b2: b1 * x**b2,
    "ENSO": southern_oscillation,
    "Eckerle4": lambda x, b1, b2, b3: b1 / b2 * exp(-0.5 * ((x - b3) / b2) ** 2),
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": cubic_ratio,
    "Kirby2": lambda x, b1, b2, b3, b4, b5: (b1 + b2 * x + b3 * x**2) / (1 + b4 * x + b5 * x**2),
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": lambda x, b1, b2, b3, b4: b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4),
    "MGH10": lambda x, b1, b2, b3: b1 * exp(b2 / (x + b3)),
    "MGH17": lambda x, b1, b2, b3, b4, b5: b1 + b2 * exp(-x * b4) + b3 * exp(-x * b5),
    "Misra1a": lambda x, b1, b2: b1 * (1 - exp(-b2 * x)),
    "Misra1b": lambda x, b1, b2: b1 * (1 - (1 + b2 * x / 2) ** -2),
    "Misra1c": lambda x, b1, b2: b1 * (1 - (1 + 2 * b2 * x) ** -0.5),
    "Misra1d": lambda x, b1, b2: b1 * b2 * x / (1 + b2 * x),
    "Nelson": lambda x, b1, b2, b3: b1 - b2 * x[:, 0] * exp(-b3 * x[:, 1]),
    "Rat42": lambda x, b1, b2, b3: b1 / (1 + exp(b2 - b3 * x)),
    "Rat43": lambda x, b1, b2, b3, b4: b1 / (1 + exp(b2 - b3 * x)) ** (1 / b4),
    "Roszman1": lambda x, b1, b2, b3, b4: b1 - b2 * x - atan(b3 / (x - b4)) / pi,
    "Thurber": cubic_ratio,
}
