"""From a formula and a table to the numbers of lme4, glmmTMB and ordinal, to 1e-6.

The references come from R 4.2 with lme4 1.1.31, glmmTMB 1.1.5 and ordinal 2022.11-16, by the command beside each. As
R's optimizers stop at some 1e-5, glmmTMB's estimates are taken on by Newton's method on its own likelihood,

    o <- m$obj; p <- m$fit$par
    for (k in 1:6) { g <- as.numeric(o$gr(p)); p <- p - solve(optimHess(p, o$fn, o$gr), g) }
    -o$fn(p); p

until its gradient is below 1e-11. Its ``p`` has log standard deviations, the correlation ρ as ρ/√(1 - ρ²), and the
logarithm of a dispersion; of Gaussian data that of the variance. Data: models/data, and data/ here:
``nested.csv`` is drawn by nested.R; models/data/wine.csv is Randall (1989), as in ordinal's ``wine``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import hofit as library
from hofit.config.load import load_source
from hofit.suggestion.formula.write import Asked, write_formula
from hofit.suggestion.text import text_of

MODELS = Path(__file__).parents[2] / "models" / "data"
HERE = Path(__file__).parent / "data"

AGREEMENT = 1e-6
"""Of what one likelihood gives in two programs."""

CLMM = 1e-5
"""Of clmm's estimates: it ends where its gradient is 6e-6, and two calls of it differ by 2e-6."""


@dataclass(frozen=True)
class Case:
    """What is asked, R's command for it, and what R gave. ``estimates``: by the name in hofit's report."""

    formula: str
    data: Path
    log_likelihood: float
    estimates: dict[str, float | list[float]]
    r: str
    family: str = "gaussian"
    zero_inflated: str | None = None
    dispersion: str | None = None
    reml: bool = False
    within: float = AGREEMENT


def correlation(theta: float) -> float:
    return theta / math.sqrt(1 + theta**2)


SLEEP, CBPP = MODELS / "sleepstudy.csv", MODELS / "cbpp.csv"
PENICILLIN, EPILEPSY = MODELS / "penicillin.csv", MODELS / "epilepsy.csv"
BETA: dict[str, float | list[float]] = {"intercept": 251.40510484848485, "Days": 10.46728595959596}

CASES = {
    "sleepstudy": Case(
        "Reaction ~ Days + (Days | Subject)",
        SLEEP,
        -875.9696722316,
        {
            **BETA,
            "sd_Subject": math.exp(3.16886873451048),
            "sd_Subject_Days": math.exp(1.74341525054900),
            "correlation_Subject": correlation(0.08159029932264),
            "sigma": math.exp(6.48454519657773 / 2),
        },
        "glmmTMB(Reaction ~ Days + (Days | Subject), s); lmer(…, REML = FALSE) has logLik -875.969672244",
    ),
    "sleepstudy, restricted": Case(
        "Reaction ~ Days + (Days | Subject)",
        SLEEP,
        -871.8141359792,
        {
            **BETA,
            "sd_Subject": math.exp(3.20843961515693),
            "sd_Subject_Days": math.exp(1.77869670557202),
            "correlation_Subject": correlation(0.06569261137121),
            "sigma": math.exp(6.48454519657774 / 2),
        },
        "glmmTMB(Reaction ~ Days + (Days | Subject), s, REML = TRUE); lmer: -871.81413598",
        reml=True,
    ),
    "sleepstudy, uncorrelated": Case(
        "Reaction ~ Days + (Days || Subject)",
        SLEEP,
        -876.0016275699,
        {
            **BETA,
            "sd_Subject": math.exp(3.185164543153),
            "sd_Subject_Days": math.exp(1.757755931874),
            "sigma": math.exp(6.481754787123 / 2),
        },
        "glmmTMB(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject), s); lmer with ||: -876.001627572",
    ),
    "sleepstudy, uncorrelated, restricted": Case(
        "Reaction ~ Days + (Days || Subject)",
        SLEEP,
        -871.8346467907,
        {
            **BETA,
            "sd_Subject": math.exp(3.220926860804),
            "sd_Subject_Days": math.exp(1.789786118562),
            "sigma": math.exp(6.482470780755 / 2),
        },
        "the same with REML = TRUE; lmer with ||: -871.834646791",
        reml=True,
    ),
    "three correlated effects": Case(
        "Reaction ~ Days + I(Days^2) + (Days + I(Days^2) | Subject)",
        SLEEP,
        -868.8088295821,
        {"intercept": 255.449372777775, "Days": 7.434085012627, "Days_2": 0.337022327441},
        "lmer(Reaction ~ Days + I(Days^2) + (Days + I(Days^2) | Subject), s, REML = FALSE, control = "
        "lmerControl(optimizer = 'bobyqa', optCtrl = list(rhoend = 1e-10, maxfun = 1e5)))",
    ),
    "a sigma that grows": Case(
        "Reaction ~ Days + (Days | Subject)",
        SLEEP,
        -870.0003477315,
        {
            "intercept": 252.85597844295066,
            "Days": 10.08606306757753,
            "log_sigma_intercept": 5.62369839851917 / 2,
            "log_sigma_Days": 0.16926782994101 / 2,
            "sd_Subject": math.exp(3.23782224101733),
            "correlation_Subject": correlation(-0.02807032832788),
        },
        "glmmTMB(Reaction ~ Days + (Days | Subject), s, dispformula = ~ Days)",
        dispersion="~ Days",
    ),
    "penicillin": Case(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        PENICILLIN,
        -166.0941743343,
        {
            "intercept": 22.9722222222222,
            "sd_plate": math.exp(-0.1677417330937),
            "sd_sample": math.exp(0.5713446093790),
            "sigma": math.exp(-1.1959205751320 / 2),
        },
        "glmmTMB(diameter ~ 1 + (1 | plate) + (1 | sample), p); lmer(…, REML = FALSE): -166.094174334",
    ),
    "penicillin, restricted": Case(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        PENICILLIN,
        -165.4302944955,
        {
            "intercept": 22.9722222222222,
            "sd_plate": math.exp(-0.166403731266),
            "sd_sample": math.exp(0.658327141155),
            "sigma": math.exp(-1.195953515159 / 2),
        },
        "the same with REML = TRUE; lmer: -165.4302945",
        reml=True,
    ),
    "nested": Case(
        "strength ~ 1 + (1 | batch/cask)",
        HERE / "nested.csv",
        -117.95494594,
        {
            "intercept": 61.4216666666667,
            "sd_batch": math.exp(0.7010363490537),
            "sd_batch_cask": math.exp(0.8237119446276),
            "sigma": math.exp(-0.5951134402886 / 2),
        },
        "glmmTMB(strength ~ 1 + (1 | batch/cask), d); lmer(…, REML = FALSE): -117.954947724, not converged",
    ),
    "nested, restricted": Case(
        "strength ~ 1 + (1 | batch/cask)",
        HERE / "nested.csv",
        -117.2750723658,
        {"sd_batch": math.exp(0.7756601075497), "sd_batch_cask": math.exp(0.8237119446276)},
        "the same with REML = TRUE; lmer: -117.275072366",
        reml=True,
    ),
    "binomial": Case(
        "p(incidence, size) ~ C(period) + (1 | herd)",
        CBPP,
        -92.0262818648,
        {
            "intercept": -1.398532466414,
            "period_2": -0.992332292860,
            "period_3": -1.128671297514,
            "period_4": -1.580313687093,
            "sd_herd": math.exp(-0.442759469184),
        },
        "glmmTMB(cbind(incidence, size - incidence) ~ factor(period) + (1 | herd), c, family = binomial); "
        "glmer, whose mode is found to 1e-3 only: -92.0265663895",
        family="binomial",
    ),
    "zero-inflated Poisson": Case(
        "seizures ~ treatment + log(base/4) + (1 | patient)",
        EPILEPSY,
        -660.246329896,
        {
            "intercept": 0.1163583968954,
            "treatment_progabide": -0.3511961371763,
            "log_base_4": 0.9908027027719,
            "zero_intercept": -3.0600094030121,
            "sd_patient": math.exp(-0.7061717100617),
        },
        "glmmTMB(seizures ~ treatment + log(base/4) + (1 | patient), e, ziformula = ~ 1, family = poisson)",
        family="poisson",
        zero_inflated="~ 1",
    ),
    "slopes and an offset": Case(
        "seizures ~ treatment + scale(visit) + offset(log(base)) + (scale(visit) | patient)",
        EPILEPSY,
        -657.5071053795,
        {},
        "glmmTMB(seizures ~ treatment + scale(visit) + offset(log(base)) + (scale(visit) | patient), e, "
        "family = poisson)",
        family="poisson",
    ),
    "Poisson, restricted": Case(
        "seizures ~ treatment + (1 | patient)",
        EPILEPSY,
        -702.2141186908,
        {"sd_patient": math.exp(-0.04656207607203)},
        "glmmTMB(seizures ~ treatment + (1 | patient), e, family = poisson, REML = TRUE)",
        family="poisson",
        reml=True,
    ),
    "negative binomial": Case(
        "seizures ~ treatment*log(base/4) + (1 | patient)",
        EPILEPSY,
        -626.8950829407,
        {
            "intercept": 0.2489160788385,
            "treatment_progabide": -0.8284801043174,
            "log_base_4": 0.8915915608306,
            "treatment_progabide_log_base_4": 0.2674688042040,
            "phi": math.exp(1.9735896543640),
            "sd_patient": math.exp(-0.7344531318271),
        },
        "glmmTMB(seizures ~ treatment * log(base/4) + (1 | patient), e, family = nbinom2)",
        family="negative_binomial",
    ),
    "zero-inflated negative binomial": Case(
        "seizures ~ treatment + (1 | patient)",
        EPILEPSY,
        -653.6413696021,
        {"zero_intercept": -3.5266346581875, "phi": math.exp(2.2182107814831)},
        "glmmTMB(seizures ~ treatment + (1 | patient), e, ziformula = ~ 1, family = nbinom2)",
        family="negative_binomial",
        zero_inflated="~ 1",
    ),
    "a dispersion by treatment": Case(
        "seizures ~ treatment + (1 | patient)",
        EPILEPSY,
        -656.3818602044,
        {"log_phi_intercept": 1.82193583231055, "log_phi_treatment_progabide": 0.38896100968845},
        "glmmTMB(seizures ~ treatment + (1 | patient), e, dispformula = ~ treatment, family = nbinom2)",
        family="negative_binomial",
        dispersion="~ treatment",
    ),
    "ordinal": Case(
        "rating ~ temp + contact + (1 | judge)",
        MODELS / "wine.csv",
        -81.5654127768,
        {
            "temp_warm": 3.0629976517,
            "contact_yes": 1.8348989411,
            "cutpoints": [-1.6236705731, 1.5133541921, 4.2285167502, 6.0887649620],
            "sd_judge": math.sqrt(1.279474795),
        },
        "clmm(rating ~ temp + contact + (1 | judge), data = wine, control = clmm.control(gradTol = 1e-12))",
        family="ordinal",
        within=CLMM,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_formula_gives_the_numbers_of_r(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    module, config = tmp_path / "a.py", tmp_path / "a.yaml"
    asked = Asked(case.formula, case.data, case.family, case.zero_inflated, case.dispersion, case.reml)
    written = write_formula(asked, module)
    module.write_text(written.module, encoding="utf-8")
    config.write_text(text_of(written.suggestion, config), encoding="utf-8")
    result = library.fit(str(module), load_source(config).data)
    assert result.status == "converged"
    assert -result.loss == pytest.approx(case.log_likelihood, rel=AGREEMENT)
    for parameter, expected in case.estimates.items():
        found = result.values[parameter]
        assert torch.allclose(found, torch.tensor(expected), rtol=case.within, atol=case.within), parameter


DERIVED = {
    "gamma": ("seizures + 0.5", -664.395018459, "shape", 1.0361321130052),
    "beta": ("(seizures + 0.5)/(base + 40)", 335.7515903032, "phi", 3.2705744480063),
    "bernoulli": ("seizures > 4", -129.9576869464, "sd_patient", 0.9879173873882),
}
"""Family → a response made of the table's columns, glmmTMB's log-likelihood, and the logarithm of a parameter."""


@pytest.mark.parametrize("family", DERIVED)
def test_families_of_other_responses_give_the_numbers_of_glmmtmb(family: str, tmp_path: Path) -> None:
    """e$y <- …; glmmTMB(y ~ treatment + (1 | patient), e, family = Gamma(link = "log") | beta_family() | binomial)."""
    import pandas as pd

    expression, log_likelihood, parameter, logarithm = DERIVED[family]
    table = pd.read_csv(EPILEPSY)
    table["y"] = table.eval(expression)
    if family == "bernoulli":
        table["y"] = table["y"].map({True: "yes", False: "no"})
    table.to_csv(tmp_path / "d.csv", index=False)
    module = tmp_path / "a.py"
    written = write_formula(Asked("y ~ treatment + (1 | patient)", tmp_path / "d.csv", family), module)
    module.write_text(written.module, encoding="utf-8")
    result = library.fit(str(module), written.suggestion.config)
    assert result.status == "converged"
    assert -result.loss == pytest.approx(log_likelihood, rel=AGREEMENT)
    assert float(result.values[parameter]) == pytest.approx(math.exp(logarithm), rel=AGREEMENT)
