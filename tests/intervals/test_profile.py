"""Profile intervals are lme4's and those of closed forms, and what has no interval says why.

References: lme4 1.1.31 under R, of fits by ML with `optCtrl = list(xtol_rel = 1e-14, ftol_rel = 1e-15)`:
`m <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)`,
`confint(profile(m, devtol = 1e-9, delta.cutoff = 1/64))`, and likewise `lmer(Yield ~ 1 + (1 | Batch), Dyestuff)`. With
its default spacing (delta.cutoff = 1/8) lme4's splines err by up to 1.6e-4 of the end (12.1985 for 12.1965).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

import hofit as library
from hofit.errors import CheckpointError, HofitError
from hofit.intervals.run_profile import ProfileResult
from hofit.plotting.profile import profile_picture
from hofit.plotting.run import open_runs
from hofit.record import Profiled, ProfilePoint, read_table
from tests.command_line import Hofit
from tests.intervals import models

ROOT = Path(__file__).parents[2]
Z = float(norm.ppf(0.975))
LME4 = 1e-4
"""What is asked of an interval against lme4's, relative; found: 2e-6."""
CLOSED = 1e-7
"""The same against closed forms."""

SLEEPSTUDY = {
    "sd_intercept": (14.3813848525197, 37.7160514590147),
    "correlation": (-0.4814925804201, 0.6850189664602),
}
DYESTUFF = {
    "tau": (12.19651399382, 84.06341074044),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Callable[..., ProfileResult]]:
    """Fits a model and gives what profiles it; ``.run`` is its directory."""
    folder = tmp_path_factory.mktemp("runs")

    def fit(name: str, model: Callable[..., None], config: dict[str, Any], **data: Any) -> Callable[..., ProfileResult]:
        if not (folder / name).exists():
            library.fit(model, config, run_dir=folder / name, data=data)

        def profile(*params: str, **options: Any) -> ProfileResult:
            return library.profile(folder / name, params=params, model=model, data=data, **options)

        profile.run = folder / name  # type: ignore[attr-defined]
        return profile

    return fit


def ends(found: ProfileResult) -> dict[str, tuple[float | None, float | None]]:
    return {f"{r.name}[{r.index}]" if r.index else r.name: (r.lower, r.upper) for r in found.rows}


def assert_near(found: ProfileResult, wanted: dict[str, tuple[float, float]], relative: float) -> None:
    assert ends(found) == {name: pytest.approx(both, rel=relative, abs=1e-9) for name, both in wanted.items()}


def test_sleepstudy_has_the_intervals_of_lme4_from_the_command_line_and_in_its_files(
    tmp_path: Path, hofit: Hofit
) -> None:
    run = tmp_path / "run"
    model, config = ROOT / "models/sleepstudy.py", ROOT / "configs/sleepstudy_marginal.yaml"
    library.fit(str(model), config, run_dir=run)
    options = [word for name in SLEEPSTUDY for word in ("--params", name)]
    printed = json.loads(hofit("profile", run, *options, "--json").out)
    intervals = {f"{r['name']}[{r['index']}]" if r["index"] else r["name"]: r for r in printed["intervals"]}
    for name, both in SLEEPSTUDY.items():
        assert (intervals[name]["lower"], intervals[name]["upper"]) == pytest.approx(both, rel=LME4)
    rows, points = read_table(Profiled, run / "profile.csv"), read_table(ProfilePoint, run / "profile_points.csv")
    assert [vars(row) for row in rows] == printed["intervals"] and len(points) == len(printed["points"])
    for row in rows:
        mine = [point for point in points if (point.name, point.index) == (row.name, row.index)]
        values, zetas = [point.value for point in mine], [point.zeta for point in mine]
        assert values == sorted(values) and zetas == sorted(zetas) and min(zetas) < -Z < Z < max(zetas)
        at_ends = [point.zeta for point in mine if point.value in (row.lower, row.upper)]
        assert at_ends == pytest.approx([-Z, Z], abs=1e-8)
    (picture,) = [profile_picture(one) for one in open_runs([run])]
    assert picture is not None and "2 quantities" in picture.description


def test_dyestuff_has_the_intervals_of_lme4_and_a_function_of_two_that_of_its_own_closed_form(fitted: Any) -> None:
    data = models.one_way_data(models.DYESTUFF)
    profile = fitted("dyestuff", models.one_way, models.MARGINAL, **data)
    found = profile("tau", "icc")
    both = ends(found)
    assert {name: both[name] for name in DYESTUFF} == {n: pytest.approx(one, rel=LME4) for n, one in DYESTUFF.items()}
    y = data["y"].reshape(6, 5)
    between, within = float(5 * y.mean(1).var(correction=0) * 6), float((y - y.mean(1, keepdim=True)).square().sum())

    def loss(rho: float) -> float:
        """With ρ the intraclass correlation, λ = 1 + 5 ρ / (1 − ρ); σ² is known, given λ. Balanced one-way, by ML."""
        ratio = 1 + 5 * rho / (1 - rho)
        return 0.5 * (30 * log((within + between / ratio) / 30) + 6 * log(ratio))

    best = minimize_scalar(loss, bounds=(0.01, 0.9), method="bounded", options={"xatol": 1e-12})
    wanted = [
        brentq(lambda r: 2 * (loss(r) - best.fun) - Z**2, *ends, xtol=1e-14)
        for ends in ((1e-6, best.x), (best.x, 0.99))
    ]
    assert both["icc"] == pytest.approx(tuple(wanted), rel=1e-6)
    for name in ("b", "largest"):
        with pytest.raises(HofitError, match="integrated out"):
            profile(name)


def test_a_variance_of_zero_ends_its_interval_and_comes_back_where_another_number_is_held_low(fitted: Any) -> None:
    """Six batches at ±0.68 with −2 … 2 in each: τ̂ = 0, but not where σ² is below 5 · 0.68²."""
    y = (0.68 * torch.tensor([1.0, -1.0] * 3)[:, None] + torch.arange(-2.0, 3.0)).reshape(-1)
    profile = fitted("barely", models.one_way, models.MARGINAL, **models.one_way_data(y.tolist()))
    within, between = 60.0, 30 * 0.68**2

    def loss(sigma2: float, ratio: float) -> float:
        return 30 * log(sigma2) + 6 * log(ratio) + (within + between / ratio) / sigma2

    def of_sigma(sigma2: float) -> float:
        return loss(sigma2, max(1.0, between / 6 / sigma2))

    def of_tau(tau: float) -> float:
        found = minimize_scalar(
            lambda s: loss(s, 1 + 5 * tau**2 / s), bounds=(0.5, 9.0), method="bounded", options={"xatol": 1e-11}
        )
        return float(found.fun)

    best = (within + between) / 30
    sigma = [sqrt(brentq(lambda v: of_sigma(v) - loss(best, 1.0) - Z**2, *ends)) for ends in ((0.5, best), (best, 9.0))]
    tau = brentq(lambda t: of_tau(t) - loss(best, 1.0) - Z**2, 0.1, 5.0)
    found = profile("tau", "sigma")
    assert_near(found, {"tau": (0.0, tau), "sigma": (sigma[0], sigma[1])}, 1e-6)
    assert "end of the support" in found.rows[0].remark and found.rows[1].remark == ""
    assert sigma[0] < 0.99 * sqrt(best * brentq(lambda v: 30 * (log(v) + 1 / v - 1) - Z**2, 0.1, 1.0))


def test_deviations_and_correlations_of_a_cholesky_factor_have_their_closed_forms(fitted: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(40, 2, generator=generator, dtype=torch.float64) @ torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double()
    profile = fitted("pairs", models.pairs, models.MAP, y=y)
    sd, r = y.std(0, correction=0).tolist(), float(torch.corrcoef(y.T)[0, 1])

    def of_deviation(ratio: float) -> float:
        """Twice the rise at a variance of ``ratio`` times the estimate."""
        return float(40 * (log(ratio) + 1 / ratio - 1) - Z**2)

    def of_correlation(rho: float) -> float:
        return float(40 * log((1 - rho * r) ** 2 / ((1 - rho**2) * (1 - r**2))) - Z**2)

    low, high = sqrt(brentq(of_deviation, 0.1, 1)), sqrt(brentq(of_deviation, 1, 10))
    pair = (brentq(of_correlation, -0.9, r), brentq(of_correlation, r, 0.999))
    wanted = {f"L: sd[{i}]": (low * sd[i], high * sd[i]) for i in range(2)} | {"L: corr[0,1]": pair}
    usual = ends(profile())
    assert {name: usual[name] for name in wanted} == {n: pytest.approx(both, rel=CLOSED) for n, both in wanted.items()}
    assert set(usual) == {*wanted, "m[0]", "m[1]"}
    # The t interval's closed form under a likelihood: half the width is s √(exp(z²/n) − 1).
    half = sd[1] * sqrt(exp(Z**2 / 40) - 1)
    mean = float(y[:, 1].mean())
    assert usual["m[1]"] == pytest.approx((mean - half, mean + half), rel=CLOSED)
    with pytest.raises(HofitError, match=r"L\[0,1\] is a constant"):
        profile("L[0,1]")
    # A report tells of every covariance that a support names; so a profile has its numbers too.
    whole = fitted("semidefinite", models.semidefinite, models.MAP, y=y)
    assert_near(whole("S: corr[0,1]"), {"S: corr[0,1]": pair}, CLOSED)


def test_a_share_of_nothing_has_an_upper_end_and_zero_below(fitted: Any) -> None:
    profile = fitted("shares", models.shares, models.MAP, counts=torch.tensor([35.0, 15.0, 0.0]))
    found = profile("p[2]")
    # No one of 50: log-likelihood 50 log(1 − p), whatever the others share.
    assert_near(found, {"p[2]": (0.0, 1 - exp(-(Z**2) / 100))}, 1e-6)
    assert "end of the support, 0" in found.rows[0].remark


def test_what_runs_to_infinity_is_bounded_by_it_and_leaves_the_others_theirs(fitted: Any) -> None:
    counts = [5.0, 2.0, 3.0, 0.0, 2.0, 4.0, 3.0, 3.0, 2.0, 4.0, 1.0, 3.0, 3.0, 5.0, 2.0, 3.0, 6.0, 1.0, 2.0, 3.0]
    profile = fitted("counts", models.overdispersed, models.MAP, y=torch.tensor(counts))
    found = profile()
    total = sum(counts)

    def rise(mu: float) -> float:  # of a Poisson: these counts vary less than one
        return float(2 * (20 * mu - total * log(mu)) - 2 * (total - total * log(total / 20)) - Z**2)

    wanted = (brentq(rise, 1.0, total / 20), brentq(rise, total / 20, 6.0))
    # Where mu is low, the counts vary more than a Poisson's again, so the true end is a little lower there.
    assert ends(found)["mu"][1] == pytest.approx(wanted[1], rel=1e-6)
    assert wanted[0] * 0.97 < ends(found)["mu"][0] <= wanted[0] * (1 + 1e-9)
    by_name = {row.name: row for row in found.rows}
    assert by_name["r"].upper == float("inf") and "inf, which bounds" in by_name["r"].remark
    assert by_name["r"].lower is not None and 1.0 < by_name["r"].lower < 100.0


def test_a_lower_place_than_the_fit_is_told_and_gives_no_interval(fitted: Any) -> None:
    found = fitted("higher", models.hills, models.MAP, y=torch.tensor(1.0))("m")
    (row,) = found.rows
    assert (row.lower, row.upper) == (None, None) and "not the maximum" in row.remark
    assert found.better is not None and found.better["m"] > 0.8 and found.better_loss < found.loss - 0.5
    assert found.to_plain()["better"]["values"] == found.better


def test_a_profile_that_falls_on_its_way_says_so(fitted: Any) -> None:
    found = fitted("lower", models.hills, models.MAP, y=torch.tensor(-1.0))("m", level=0.995)
    assert "not monotone" in found.rows[0].remark

    # ζ rises to 2 between the hills and falls to 1.6 on the second: the level's 2.807 lies beyond both.
    def density(m: float) -> float:
        return float(norm.pdf(m, 0.0, 0.4) + exp(-1.0) * norm.pdf(m, 1.6, 0.4))

    best = minimize_scalar(lambda m: -density(m), bounds=(-0.5, 0.5), method="bounded", options={"xatol": 1e-12})
    cutoff = float(norm.ppf(0.9975))
    end = brentq(lambda m: 2 * log(-best.fun / density(m)) - cutoff**2, 1.7, 4.0, xtol=1e-12)
    assert found.rows[0].upper == pytest.approx(end, rel=CLOSED)


def test_what_is_profiled_is_said_where_it_is_no_likelihood_of_everything(fitted: Any) -> None:
    y = torch.tensor([1.0, 2.0, 4.0, 3.5])
    found = fitted("prior", models.with_prior, models.MAP, y=y)()
    assert "density with its priors" in found.remarks[0]
    # A normal prior N(0, 1) and four data of variance one: precision 5.
    centre, half = float(y.sum()) / 5, Z / sqrt(5)
    assert_near(found, {"mu": (centre - half, centre + half)}, CLOSED)
    restricted = fitted("flat", models.flat_mean, models.RESTRICTED, y=y)
    assert "restricted likelihood: mu" in restricted("sigma").remarks[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--params", "sigm"], 'did you mean "sigma"?'),
        (["--params", ""], "an empty pattern"),
        (["--level", "95"], "a level lies between 0 and 1"),
        (["--params", "re:("], "no regular expression"),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_written(
    fitted: Any, hofit: Hofit, tmp_path: Path, options: list[str], words: str
) -> None:
    outcome = hofit("profile", _run_of_a_file(tmp_path), *options)
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err and outcome.out == ""
    assert not (tmp_path / "run" / "profile.csv").exists()


def _run_of_a_file(folder: Path) -> Path:
    (folder / "model.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(y):\n"
        "    mu = pyro.param('mu', torch.tensor(0.0))\n"
        "    sigma = pyro.param('sigma', torch.tensor(1.0), constraint=dist.constraints.positive)\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        pyro.sample('y', dist.Normal(mu, sigma), obs=y)\n"
        "def load_data():\n"
        "    return {'y': [1.0, 2.0, 4.0]}\n"
    )
    library.fit(str(folder / "model.py"), models.MAP, run_dir=folder / "run")
    return folder / "run"


def test_a_fit_that_has_not_converged_or_is_of_a_callable_is_refused(tmp_path: Path, hofit: Hofit) -> None:
    data = {"y": torch.tensor([1.0, 2.0, 4.0])}
    config = {**models.MAP, "stop": {"max_iterations": 1}}
    library.fit(models.normal, config, run_dir=tmp_path / "run", data=data)
    with pytest.raises(HofitError, match="has not converged"):
        library.profile(tmp_path / "run", model=models.normal, data=data)
    (tmp_path / "run" / "profile.csv").write_text("of an earlier end")
    library.resume(tmp_path / "run", model=models.normal, data=data, set=["stop.max_iterations=50"])
    assert not (tmp_path / "run" / "profile.csv").exists()
    with pytest.raises(CheckpointError, match="given from Python"):
        library.profile(tmp_path / "run")
    assert hofit("profile", tmp_path / "nowhere").code == 2
