"""Many small models, a file a topic, and in one table by name."""

from tests.curvature.lifting.models import entangled, functions, hierarchies, later, likelihoods, opaque, sizes
from tests.curvature.lifting.models.base import Case

CASES: dict[str, Case] = {
    **hierarchies.CASES,
    **functions.CASES,
    **likelihoods.CASES,
    **entangled.CASES,
    **opaque.CASES,
    **sizes.CASES,
    **later.CASES,
}
