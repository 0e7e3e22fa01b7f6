"""How close is close: the tolerances of the tests, by what they stand for.

A test takes the one of its kind; one that needs another keeps it as a constant beside it, with the reason. All are
relative, or absolute of numbers of order one, unless they say otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Entry by entry, relative and absolute at once; torch.allclose, left alone, lets five digits pass."""
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance)


# --- Two float64 computations of one number -------------------------------------------------------

CONVERSION = 1e-15
"""One operation, or the way through a file and back: a few units in the last place, each 2.2e-16."""

ROUNDING = 1e-12
"""Sums, products and solves of well-conditioned numbers in another order: some thousand roundings, none enlarged."""

CONDITIONED = 1e-9
"""The same through an inverse or an eigenvalue that enlarges a rounding up to a million times."""

SINGLE = 1e-5
"""float32, whose roundings are 1.2e-7: a hundred of them, none enlarged."""

SINGLE_ESTIMATE = 1e-3
"""What a fit in float32 finds: its loss is flat to 1e-7 over the square root of that, 3e-4, around the mode."""

# --- Differences in place of derivatives ----------------------------------------------------------

DIFFERENCES = 1e-7
"""A slope by central differences with steps of 1e-5 or so: what they leave out, and rounding over the step."""

SLOPE = 1e-6
"""The same of a loss that is itself found by iterations or has large third derivatives; of the slope's size."""

CURVATURE_BY_DIFFERENCES = 1e-5
"""A second derivative by differences of slopes; of the largest entry."""

# --- Where a fit ends -----------------------------------------------------------------------------

GRADIENT = 1e-6
"""`stop.gradient` as it is by default: a fit that has converged has no entry of its gradient above."""

MODE = 1e-6
"""A parameter at the end of a fit: the gradient that is left, GRADIENT, over a curvature of one or more."""

FLAT_MODE = 1e-5
"""The same over a curvature of a tenth, and where scipy's own minimiser is left at its default, a gradient of 1e-5."""

MINIMUM = 1e-9
"""A loss at the end of a fit: the half square of GRADIENT over a curvature of 5e-4 or more."""

# --- What others have published -------------------------------------------------------------------


def decimals(count: int) -> float:
    """Half a unit of the last of so many decimals: a printed number holds no more."""
    return 0.5 * 10.0**-count


PUBLISHED = 1e-6
"""Estimates of lme4, whose own optimiser stops there."""

LOG_LIKELIHOOD = 1e-6
"""Absolute: a log-likelihood of Gaussians, which everyone has in closed form, by programs that stop at a mode."""

APPROXIMATE_LOG_LIKELIHOOD = 1e-5
"""Absolute: the same by Laplace's approximation or quadrature, whose inner modes another program finds less exactly."""

ESTIMATE = 2e-5
"""An estimate, of itself or of its error, whichever is larger: where other programs' optimisers stop."""

STANDARD_ERROR = 1e-3
"""Of Hessians that another program, or the reference in numpy, has by differences of gradients."""

# --- Monte Carlo ----------------------------------------------------------------------------------

STANDARD_ERRORS = 5.0
"""Distance from an expectation in standard errors of the mean: a right one is farther once in two million."""
