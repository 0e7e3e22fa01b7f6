"""A fit in pieces is that of the whole: loss, estimates, errors, and what is said of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

import hofit
from hofit.errors import ConfigError, DataError, HofitError, ModelError
from hofit.model.pieces import even_bounds, told_apart
from hofit.prediction.predict import PredictRequest, run_predict
from hofit.run import large
from hofit.run.resume import ResumeRequest

MODELS = Path(__file__).parent / "models.py"
ROOT = Path(__file__).parents[2]
LAPLACE = {"type": "marginal", "integrate": {"b": "laplace"}}


def fit(model: str, pieces: int | None, objective: Any, **config: Any) -> hofit.FitResult:
    shard = {} if pieces is None else {"shard": {"chunks": pieces, **config.pop("shard", {})}}
    config.pop("shard", None)
    optimizers = [{"params": "*", "optimizer": "trust_region"}]
    return hofit.fit(f"{MODELS}:{model}", {"optimizers": optimizers, "objective": objective, **shard, **config})


def is_that_of(found: hofit.FitResult, whole: hofit.FitResult) -> None:
    assert found.status == whole.status == "converged"
    assert found.loss == pytest.approx(whole.loss, rel=1e-10)
    for number, wanted in ((found.log_likelihood, whole.log_likelihood), (found.bic, whole.bic)):
        assert number is wanted is None or number == pytest.approx(wanted, rel=1e-10)
    assert found.observations == whole.observations
    assert found.observed_sums == pytest.approx(whole.observed_sums, rel=1e-10)
    evidence, of_whole = found.uncertainty.log_evidence, whole.uncertainty.log_evidence
    assert evidence is of_whole is None or evidence == pytest.approx(of_whole, abs=1e-7)
    assert list(found.values) == list(whole.values) and list(found.std_errors) == list(whole.std_errors)
    for name, error in whole.std_errors.items():
        assert found.values[name].shape == whole.values[name].shape
        assert bool(((found.values[name] - whole.values[name]).abs() <= 1e-7 * error).all())
        for mine, other in zip(
            (found.std_errors, found.lower, found.upper), (whole.std_errors, whole.lower, whole.upper), strict=True
        ):
            assert bool(((mine[name] - other[name]).abs() <= 1e-7 * error).all())
    assert {s.name: (s.shape, s.role, s.plates) for s in found.sites.values()} == {
        s.name: (s.shape, s.role, s.plates) for s in whole.sites.values()
    }


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        ("intercepts", LAPLACE),
        ("intercepts", {**LAPLACE, "jacobian": True, "uncertainty": "full"}),
        ("held_scale", "map"),
        ("held_scale", "map_unconstrained"),
        ("counts", LAPLACE),
        ("counts", {"type": "marginal", "integrate": {"b": "aghq"}}),
        ("mixture", {"type": "map", "integrate": {"kind": "enumerate"}}),
        ("regression", "map"),
        ("own_factor", "map"),
    ],
    ids=lambda one: one if isinstance(one, str) else "-".join(map(str, one.get("integrate", {}).values())),
)
def test_a_fit_in_pieces_is_that_of_the_whole(model: str, objective: Any) -> None:
    whole, found = fit(model, None, objective), fit(model, 3 if model != "own_factor" else 5, objective)
    if model == "own_factor":  # five factors, one a piece, are five entries
        assert found.loss == pytest.approx(whole.loss, rel=1e-10)
        return
    is_that_of(found, whole)
    if model == "intercepts":
        assert list(found.derived) == ["total", "ratio"]
        for name, (value, error) in whole.derived.items():
            assert torch.allclose(found.derived[name][0], value, rtol=1e-7)
            assert torch.allclose(found.derived[name][1], error, rtol=1e-7, equal_nan=True)
        assert torch.allclose(found.uncertainty.shrinkage["b"], whole.uncertainty.shrinkage["b"], rtol=1e-8)


def test_pieces_of_a_table_have_the_answer_of_lme4() -> None:
    """As tests/examples has it of the whole; the numbers of subjects go on, and the labels are the table's."""
    config = {
        "data": {
            "path": str(ROOT / "models/data/sleepstudy.csv"),
            "columns": {
                "reaction": "Reaction",
                "days": "Days",
                "subject": {"column": "Subject", "codes": True, "levels": "n_subjects"},
            },
        },
        "objective": LAPLACE,
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
        "shard": {"chunks": 4},
    }
    found = hofit.fit(str(ROOT / "models/sleepstudy.py"), config)
    assert found.status == "converged" and found.loss == pytest.approx(875.96967223, abs=1e-7)
    assert found.values["b"].shape == (18, 2) and found.labels()["subjects"][:2] == [308, 309]
    assert [row["index"] for row in found.estimates() if row["name"] == "b"][-1] == "17,1"


def test_pieces_have_the_same_bits_and_the_same_way_whenever_they_are_fitted() -> None:
    one, other = fit("counts", 3, LAPLACE), fit("counts", 3, LAPLACE)
    assert one.loss == other.loss and torch.equal(one.values["b"], other.values["b"])
    assert fit("counts", 2, LAPLACE).iterations == one.iterations


@pytest.mark.parametrize(
    ("model", "objective", "config", "error", "said"),
    [
        ("own_size", "map", {}, ModelError, r"'level' has the shape \(3,\) in piece"),
        ("own_prior", "map", {}, ModelError, "the prior of 'level' is another"),
        ("own_sum", "map", {}, ModelError, "'sum' observes one number outside of every plate"),
        ("as_long", "map", {"shard": {"chunks": 4}}, ModelError, "'known' is the same in all pieces, and as long"),
        ("starts_from_data", "map", {}, ModelError, "'level' starts elsewhere .* init: {values: {level"),
        (
            "crossed",
            {"type": "marginal", "integrate": {"b": "laplace", "c": "laplace"}},
            {"shard": {"plate": "groups"}},
            ConfigError,
            "'c' is integrated out and not in the plate 'groups'",
        ),
        (
            "shared_kind",
            {"type": "map", "integrate": {"kind": "enumerate"}},
            {},
            ModelError,
            "the discrete latent 'kind' stands outside",
        ),
        ("crossed", "map", {}, ConfigError, r"say which plate is shared out: plate: NAME \(groups, halves\)"),
        ("intercepts", LAPLACE, {"shard": {"plate": "group"}}, ConfigError, "no plate 'group'"),
        ("intercepts", LAPLACE, {"starts": 3}, ConfigError, "several starts take the whole data"),
    ],
)
def test_what_pieces_cannot_have_is_refused_by_name(
    model: str, objective: Any, config: dict[str, Any], error: type[HofitError], said: str
) -> None:
    with pytest.raises(error, match=said):
        fit(model, config.get("shard", {}).get("chunks", 5), objective, **config)


def test_load_data_must_load_a_piece() -> None:
    with pytest.raises(DataError, match="let it take `rank`"):
        hofit.fit(
            str(ROOT / "models/hierarchical_logistic.py"),
            {"optimizers": [{"params": "*", "optimizer": "newton"}], "shard": {"chunks": 2}},
        )


def test_a_fit_in_chunks_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = fit("counts", 3, LAPLACE)
    config = {"stop": {"max_iterations": 2}, "shard": {"chunks": 3}, "objective": LAPLACE}
    optimizers = [{"params": "*", "optimizer": "trust_region"}]
    run = tmp_path / "run"
    hofit.fit(f"{MODELS}:counts", {"optimizers": optimizers, **config}, run_dir=run)
    assert sorted(path.name for path in run.glob("piece-*")) == [f"piece-2-{k}.safetensors" for k in range(3)]
    found = hofit.resume(run, set=["stop.max_iterations=100"])
    assert found.loss == whole.loss and found.iterations == whole.iterations
    for name, value in whole.values.items():
        assert torch.equal(found.values[name], value)


def test_a_damaged_piece_is_not_believed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = {"objective": LAPLACE, "shard": {"chunks": 2}, "optimizers": [{"params": "*", "optimizer": "newton"}]}
    hofit.fit(f"{MODELS}:counts", config, run_dir=run)
    for piece in run.glob("piece-*-1.safetensors"):
        piece.write_bytes(piece.read_bytes()[:-1] + b"\0")
    with pytest.raises(HofitError, match="which is damaged or gone"):
        hofit.resume(run)


@pytest.mark.parametrize(("model", "objective"), [("counts", LAPLACE), ("held_scale", "map")])
def test_what_follows_a_fit_takes_the_whole_data(model: str, objective: Any, tmp_path: Path) -> None:
    """The run is opened in one piece, at the estimate of all of them."""
    runs = [tmp_path / "pieces", tmp_path / "whole"]
    for run, shard in zip(runs, ({"shard": {"chunks": 3}}, {}), strict=True):
        config = {"objective": objective, "optimizers": [{"params": "*", "optimizer": "trust_region"}], **shard}
        hofit.fit(f"{MODELS}:{model}", config, run_dir=run)
    of_pieces, of_whole = (run_predict(PredictRequest(ResumeRequest(run), draws=10)) for run in runs)
    assert torch.allclose(of_pieces.estimate, of_whole.estimate, rtol=1e-6)
    assert torch.allclose(of_pieces.std_error, of_whole.std_error, rtol=1e-6)


def test_what_is_held_in_the_plate_is_of_all_pieces() -> None:
    config = {"fixed": {"spread": 1.2}}
    whole, found = fit("held_scale", None, "map", **config), fit("held_scale", 3, "map", **config)
    is_that_of(found, whole)


def test_pieces_of_a_table_do_not_all_have_as_many_rows() -> None:
    """So what depends on how many there are is told from what is the same for all."""
    bounds = told_apart(even_bounds(np.full(12, 6), 3), np.full(12, 6))
    assert bounds.tolist() == [0, 3, 8, 12]


def test_a_factor_that_pieces_of_equal_size_cannot_tell_apart_is_told_of() -> None:
    assert any("the factor penalty is the same in all pieces" in one for one in fit("intercepts", 3, LAPLACE).remarks)
    assert not any("penalty" in one for one in fit("intercepts", 5, LAPLACE).remarks)


def test_estimates_of_many_numbers_have_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "MANY", 10)
    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}], "objective": LAPLACE}
    run = tmp_path / "run"
    found = hofit.fit(f"{MODELS}:intercepts", {**config, "shard": {"chunks": 2}}, run_dir=run)
    table = parquet.read_table(run / "estimates-b.parquet").to_pydict()
    assert table["index_0"] == list(range(len(found.values["b"])))
    for column, values in (("estimate", found.values), ("std_error", found.std_errors), ("lower", found.lower)):
        assert table[column] == pytest.approx(values["b"].tolist(), rel=1e-12)
    assert table["unconstrained"] == found.params["b"].tolist()
    listed = (run / "estimates.csv").read_text()
    assert "level" in listed and "\nb[" not in listed and "\nb," not in listed
