"""A fit does not load torch's compiler, which takes longer than the fit."""

from __future__ import annotations

import subprocess
import sys

BINOMIAL = """
import sys
import pyro
import pyro.distributions as dist
import torch
import hofit

def model(y):
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("y", dist.Binomial(10, logits=b).to_event(1), obs=y)

y = torch.tensor([1.0, 5.0, 9.0])
result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}, y=y)
assert result.status == "converged", result
print("torch._dynamo" in sys.modules)
"""


def test_second_derivatives_of_a_binomial_do_not_load_the_compiler() -> None:
    outcome = subprocess.run([sys.executable, "-c", BINOMIAL], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "False"
