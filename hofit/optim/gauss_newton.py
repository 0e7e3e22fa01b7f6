"""Gauss–Newton steps (Levenberg–Marquardt), and the expected information where the likelihood is not Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..point import HasInformation, Point, TracedPoint
from .spec import OptimizerSpec
from .trust_region import Options, TrustRegion

OPTIMIZER = OptimizerSpec.own(
    "gauss_newton",
    "Gauss–Newton steps (Levenberg–Marquardt), or the expected information, inside a trust region",
    Options,
    lambda options: GaussNewton(options.structure, options.initial_radius),
)


class GaussNewton(TrustRegion):
    """As ``trust_region``, with the expected information JᵀFJ in the place of the Hessian.

    F is the Fisher information of each observed distribution in its own parameters, J their derivative: for a Gaussian
    likelihood this is Gauss and Newton's matrix, and with the trust region Levenberg and Marquardt's method; for an
    exponential family it is Fisher scoring. It is never indefinite, so far from a mode it may serve where the Hessian
    does not; near one it converges linearly where the residuals are large and curved. Priors and observed sites
    without a known divergence (``pyro.factor``, Student's t) keep their exact second derivatives.

    Args:
        structure: as for ``trust_region``.
        initial_radius: as for ``trust_region``.
    Shapes: p, g (d,); JᵀFJ (d, d), never formed unless dense.
    Cost: as ``trust_region``, and one trace without gradients.
    Raises: OptionError.
    Source: Moré (1978), "The Levenberg-Marquardt algorithm"; Nocedal & Wright (2006), section 10.3; for Fisher scoring
    Lange (2013), "Optimization", section 10.4; the Hessian of the divergence is Kullback's (1959), section 2.6.
    """

    name = OPTIMIZER.name
    reads_model = True
    second_order = False  # its products are taken elsewhere: on a point of the divergence

    def _hessian(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        if not isinstance(point, TracedPoint) or not isinstance(point.source, HasInformation):
            raise TypeError("gauss_newton reads the model's distributions: it needs a hofit objective, not a bare loss")
        return self.curvature.at(point.source.information(point), names)
