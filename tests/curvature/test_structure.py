"""Which structure is found, which claims are refused, what a Hessian costs, and what a state keeps."""

from __future__ import annotations

import json
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import hofit
from hofit.curvature import choice, structure
from hofit.curvature.choice import StructureRefuted
from hofit.curvature.structure import Curvature
from hofit.errors import OptionError
from hofit.linear.matrix_free import MatrixFree
from hofit.linear.operator import Operator
from hofit.point import TracedPoint
from tests.curvature.hessians import Model, check, objective, random_point, whole

generator = torch.Generator().manual_seed(0)
G, N = 100, 500
GROUP = torch.arange(G).repeat_interleave(N // G)
SUBJECT = torch.randint(0, G, (N,), generator=generator)
ITEM = torch.randint(0, 30, (N,), generator=generator)
Y = torch.randn(N, generator=generator, dtype=torch.float64)
COUNT = torch.poisson(torch.full((N,), 2.0, dtype=torch.float64), generator=generator)


class Opaque(torch.autograd.Function):
    """The identity, written so that nothing can be known of it: no map is lifted through it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clone()


def local(name: str, plate: str, size: int) -> Tensor:
    with pyro.plate(plate, size):
        value: Tensor = pyro.sample(name, dist.Normal(0.0, 1.0))
    return value


def poisson(eta: Tensor, name: str = "y") -> None:
    pyro.sample(name, dist.Poisson(eta.exp()).to_event(1), obs=COUNT[: len(eta)])


def scalars() -> None:
    poisson(local("b", "g", G)[GROUP])


def pairs() -> None:
    with pyro.plate("g", G):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    poisson(b[GROUP, 0] + b[GROUP, 1] * Y)


def hierarchical() -> None:
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("g", G):
        b = pyro.sample("b", dist.Normal(mu, tau))
    poisson(b[GROUP])


def random_walk() -> None:
    x = local("x", "t", G)
    pyro.factor("steps", -((x[1:] - x[:-1]) ** 2).sum())
    poisson(x[GROUP])


def crossed() -> None:
    poisson(local("subject", "subjects", G)[SUBJECT] + local("item", "items", 30)[ITEM])


def regression() -> None:
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    poisson(beta[0] + beta[1] * Y)


def plateless() -> None:
    w = pyro.param("w", torch.zeros(50))
    pyro.factor("f", -(w**4 + w**2).sum())


def unliftable(model: Model) -> Model:
    """The same with every latent passed through a function that cannot be followed."""

    def opaque() -> None:
        original = pyro.sample

        def sample(name: str, *args: Any, **kwargs: Any) -> Any:
            value = original(name, *args, **kwargs)
            return value if "obs" in kwargs else Opaque.apply(value * 1.0)  # type: ignore[no-untyped-call]

        pyro.sample = sample
        try:
            model()
        finally:
            pyro.sample = original

    return opaque


def structure_of(operator: Operator | MatrixFree) -> str:
    return operator.structure if isinstance(operator, Operator) else "matrix_free"


# claims ---------------------------------------------------------------------------------------------------------------

CLAIMS = [
    ("diagonal", scalars, "diagonal", None),
    ("diagonal", plateless, "diagonal", None),
    ("diagonal", pairs, None, ["b"]),
    ("diagonal", hierarchical, None, ["b"]),
    ("diagonal", random_walk, None, ["x"]),
    ("rows", scalars, "diagonal", None),
    ("rows", pairs, "rows", None),
    ("rows", hierarchical, None, ["b"]),
    ("rows", random_walk, None, ["x"]),
    ("rows", crossed, None, ["subject", "item"]),
    ("arrowhead", hierarchical, "arrowhead", None),
    ("arrowhead", crossed, "arrowhead", None),
    ("arrowhead", random_walk, None, ["x"]),
    ("arrowhead", regression, None, ["beta"]),
    ("dense", hierarchical, "dense", None),
    ("dense", random_walk, "dense", None),
    ("matrix_free", crossed, "matrix_free", None),
    ("auto", scalars, "diagonal", None),
    ("auto", pairs, "rows", None),
    ("auto", hierarchical, "arrowhead", None),
    ("auto", crossed, "arrowhead", None),
    ("auto", random_walk, "dense", None),
    ("auto", regression, "dense", None),
    ("auto", plateless, "diagonal", None),
]


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "probed"])
@pytest.mark.parametrize("claim, model, found, refused", CLAIMS)
def test_a_claim_is_taken_or_refused_by_name(
    claim: str, model: Model, found: str | None, refused: list[str] | None, lifted: bool
) -> None:
    with objective(model if lifted else unliftable(model)) as at:
        curvature = Curvature(claim)
        if refused is not None:
            with pytest.raises(StructureRefuted, match=f"structure: {claim}") as error:
                curvature.at(at.at(random_point(at.start(), 1)), list(at.start()))
            assert all(name in str(error.value) for name in refused)
            return
        operator = check(curvature, at, random_point(at.start(), 1))
        assert structure_of(operator) == found
        assert curvature.lifts is (claim != "matrix_free" and (lifted or model is plateless)), curvature.why_not_lifted
        assert structure_of(check(curvature, at, random_point(at.start(), 2))) == found


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(OptionError, match="structure must be one of auto, diagonal"):
        Curvature("banded")


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "probed"])
def test_a_fit_with_a_wrong_claim_ends_as_a_model_error_that_names_the_parameter(lifted: bool) -> None:
    model = random_walk if lifted else unliftable(random_walk)
    row = {"params": "*", "optimizer": "trust_region"}
    result = hofit.fit(model, {"optimizers": [{**row, "structure": "rows"}]})
    assert result.status == "model_error"
    assert any("rows of x interact" in one and "structure: rows" in one for one in result.remarks)
    right = hofit.fit(model, {"optimizers": [row]})
    assert right.converged


def refuted_later() -> None:
    """Rows interact wherever k is not zero."""
    k = pyro.sample("k", dist.Normal(0.0, 1.0))
    b = local("b", "g", 70)
    pyro.factor("f", k**2 * b.sin().sum() ** 2 - (b**2).sum())


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "probed"])
def test_rows_that_interact_only_later_are_found_when_they_do(lifted: bool) -> None:
    with objective(refuted_later if lifted else unliftable(refuted_later)) as at:
        for claim in ("rows", "diagonal"):
            curvature = Curvature(claim)
            zero = {name: torch.zeros_like(p) for name, p in at.start().items()}
            check(curvature, at, zero)
            with pytest.raises(StructureRefuted):
                curvature.at(at.at(random_point(at.start(), 1)), list(zero))
        curvature = Curvature()
        check(curvature, at, zero)
        assert structure_of(check(curvature, at, random_point(at.start(), 1))) == "dense"
        assert any("rows of b interact: they are taken together" in one for one in curvature.remarks())
        check(curvature, at, random_point(at.start(), 2))


# what auto finds ------------------------------------------------------------------------------------------------------


def test_crossed_effects_take_the_larger_as_rows_and_say_nothing_of_coarsening() -> None:
    with objective(crossed) as at:
        curvature = Curvature()
        operator = check(curvature, at, random_point(at.start(), 1))
        assert "arrowhead: 100 rows of 1 (subject); border of 30 (item)" in curvature.describe(operator)
        assert curvature.remarks() == []


def test_plates_that_do_not_touch_are_both_rows() -> None:
    def model() -> None:
        poisson(local("a", "p", G)[GROUP])
        poisson(local("b", "q", 30)[ITEM], "z")

    with objective(model) as at:
        curvature = Curvature()
        operator = check(curvature, at, random_point(at.start(), 1))
        assert "diagonal: 100 rows of 1 (a); 30 rows of 1 (b)" in curvature.describe(operator)


def test_coarsening_is_said() -> None:
    with objective(random_walk) as at:
        curvature = Curvature()
        operator = check(curvature, at, random_point(at.start(), 1))
        assert "dense (100)" in curvature.describe(operator)
        assert curvature.remarks() == ["rows of x interact: they are taken together"]


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "probed"])
def test_a_border_too_large_leaves_products_alone(lifted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "BORDER_LIMIT" if lifted else "COLUMNS_LIMIT", 20)
    with objective(random_walk if lifted else unliftable(random_walk)) as at:
        curvature = Curvature()
        operator = check(curvature, at, random_point(at.start(), 1))
        assert structure_of(operator) == "matrix_free" and "matrix_free" in curvature.describe(operator)
        assert curvature.remarks() == ["rows of x interact: only products with the Hessian are used"]
        check(curvature, at, random_point(at.start(), 2))


def test_couplings_that_would_fill_the_memory_leave_products_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "COUPLINGS_LIMIT", 1000)
    with objective(crossed) as at:
        assert structure_of(check(Curvature(), at, random_point(at.start(), 1))) == "matrix_free"


def test_nothing_of_the_size_of_rows_by_rows_is_made() -> None:
    rows = 30_000
    group = torch.arange(rows)
    count = torch.ones(rows)

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("g", rows):
            b = pyro.sample("b", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Poisson(b[group].exp()).to_event(1), obs=count)

    with objective(model) as at:
        largest = 0

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                nonlocal largest
                result = func(*args, **(kwargs or {}))
                if isinstance(result, Tensor):
                    largest = max(largest, result.untyped_storage().nbytes())
                return result

        curvature = Curvature()
        for seed in (1, 2):
            params = random_point(at.start(), seed)
            with Watch():  # type: ignore[no-untyped-call]
                operator = curvature.at(at.at(params), list(params))
        assert structure_of(operator) == "arrowhead" and curvature.lifts
        assert largest <= 64 * rows


# parts of the parameters, costs, states -------------------------------------------------------------------------------


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "probed"])
def test_the_hessian_over_some_names_holds_the_others(lifted: bool) -> None:
    with objective(crossed if lifted else unliftable(crossed)) as at:
        params = random_point(at.start(), 1)
        for names in (["item"], ["subject"]):
            curvature = Curvature()
            assert structure_of(check(curvature, at, params, names)) == "diagonal"
            assert structure_of(check(curvature, at, random_point(at.start(), 2), names)) == "diagonal"
            assert curvature.lifts is lifted
        assert all(leaf.requires_grad for leaf in at.at(params).leaves.values())


def test_one_curvature_over_other_names_begins_anew() -> None:
    with objective(hierarchical) as at:
        params, curvature = random_point(at.start(), 1), Curvature()
        for names in (list(params), ["b"], ["mu", "tau"], ["tau", "mu", "b"], list(params)):
            check(curvature, at, params, names)


def test_a_lifted_hessian_takes_no_products_but_the_proof() -> None:
    with objective(hierarchical) as at:
        curvature = Curvature()
        counts = []
        for seed in (1, 2, 3):
            before = at.evaluations.hvp
            params = random_point(at.start(), seed)
            curvature.at(at.at(params), list(params))
            counts.append(at.evaluations.hvp - before)
        assert counts == [1, 0, 0] and curvature.lifts and curvature.products == 0


def test_a_probed_hessian_takes_a_product_a_column_and_one_to_prove_it() -> None:
    with objective(unliftable(pairs)) as at:
        curvature = Curvature()
        for seed in (1, 2):
            before = at.evaluations.hvp
            params = random_point(at.start(), seed)
            operator = curvature.at(at.at(params), list(params))
            assert at.evaluations.hvp - before == 3
        assert curvature.products == 2 and not curvature.lifts
        assert "by products (" in curvature.describe(operator)


@pytest.mark.parametrize("model", [hierarchical, crossed, random_walk, pairs, unliftable(crossed), regression])
def test_a_resumed_curvature_gives_the_same_hessian_to_the_bit(model: Model) -> None:
    with objective(model) as at:
        first = Curvature()
        params = random_point(at.start(), 1)
        first.at(at.at(params), list(params))
        resumed = Curvature()
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        params = random_point(at.start(), 2)
        one, other = (c.at(at.at(params), list(params)) for c in (first, resumed))
        assert structure_of(one) == structure_of(other)
        assert torch.equal(whole(one), whole(other))
        assert first.state_dict() == resumed.state_dict() and first.remarks() == resumed.remarks()


def test_a_state_that_does_not_fit_any_more_is_coarsened() -> None:
    with objective(scalars) as at:
        curvature = Curvature()
        params = random_point(at.start(), 1)
        curvature.at(at.at(params), list(params))
        state = curvature.state_dict()
    state["names"] = ["x"]
    state["rows"] = [["x"]]
    with objective(random_walk) as at:
        curvature = Curvature()
        curvature.load_state_dict(state)
        assert structure_of(check(curvature, at, random_point(at.start(), 1))) == "dense"


def test_two_rows_that_interact_are_not_taken_for_independent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """By products: a probe with equal signs would find the row sums on the diagonal."""
    monkeypatch.setattr(structure, "FEW_UNKNOWNS", 64)

    def model() -> None:
        a, b = pyro.param("a", torch.tensor(1.0)), pyro.param("b", torch.tensor(2.0))
        pyro.factor("loss", -(a**2 + a * b + b**2))

    optimizer = {"params": "*", "optimizer": "trust_region", "structure": "rows"}
    result = hofit.fit(model, {"optimizers": [optimizer]})
    assert result.status == "model_error" and any("interact" in remark for remark in result.remarks)


def test_a_bare_loss_is_probed() -> None:
    leaf = torch.linspace(-1.0, 1.0, 5).requires_grad_(True)
    point = TracedPoint({"x": leaf.detach().clone()}, (leaf**3).sum() + leaf[0] * leaf[1], {"x": leaf})
    operator = Curvature().at(point, ["x"])
    assert torch.allclose(whole(operator).diagonal(), 6 * leaf.detach())
