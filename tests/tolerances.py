"""Tolerances and what they stand for (float64)."""

EXACT = 1e-12
"""The same arithmetic in another order."""
CLOSED_FORM = 1e-8
"""A fitted value against a closed form: a gradient of 1e-6 over a curvature of 100 or more, or a confirmed Newton step."""
FITTED = 1e-5
"""A fitted value against another program's, where both stop at a gradient of about 1e-6."""
