"""The repr for notebooks: one well-formed element, the verdict first, every word of the user's escaped."""

from __future__ import annotations

from xml.etree import ElementTree

import pyro
import pyro.distributions as dist
import torch

import hofit
from hofit.fitting.result import FitResult

NAME = "<b>&a"


def model() -> None:
    x = pyro.sample(NAME, dist.Normal(1.0, 2.0))
    pyro.sample("many", dist.Normal(torch.zeros(20), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(3.0))


def shown(result: FitResult) -> ElementTree.Element:
    return ElementTree.fromstring(result._repr_html_().replace("&nbsp;", " "))


def test_a_fit_is_shown_with_verdict_and_estimates() -> None:
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    result.remarks.append("a remark with <script>")
    whole = shown(result)
    texts = ["".join(p.itertext()) for p in whole.iter("p")]
    assert texts[0].startswith("converged: loss") and texts[1:] == ["a remark with <script>"]
    rows = [["".join(cell.itertext()) for cell in row] for row in whole.iter("tr")]
    assert rows[0] == ["name", "role", "estimate", "std. error", "95 % interval"]
    assert rows[1][:4] == [NAME, "latent", "2.6", "0.89443"]  # (1/4 + 3) / (1/4 + 1), and its variance 1 / (1/4 + 1)
    assert rows[1][4] == "0.84695 … 4.353"
    assert rows[2][0] == "many[0]" and len(rows) == 1 + 1 + 8 + 1 and rows[-1] == ["many: 12 more numbers"]
    assert not list(whole.iter("script")) and not list(whole.iter("a"))


def test_a_fit_that_has_not_converged_says_what_to_try() -> None:
    entry = {"params": "*", "optimizer": "adam"}
    result = hofit.fit(model, {"optimizers": [entry], "stop": {"max_iterations": 1}})
    texts = ["".join(p.itertext()) for p in shown(result).iter("p")]
    assert texts[0].startswith("max_iterations: loss") and f"What to try: {result.remedy}" in texts
