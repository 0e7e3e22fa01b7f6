"""Fixtures of the curvature's tests."""

import pytest

from hofit.curvature import cost, structure


@pytest.fixture(autouse=True)
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' models are small, and it is the lifted Hessian that they are about, whatever it costs."""
    monkeypatch.setattr(structure, "FEW_UNKNOWNS", 0)
    monkeypatch.setattr(cost, "MANY_TERMS", 10**9)
