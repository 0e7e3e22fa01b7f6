"""Old Faithful: eruptions are short or long, a mixture of two bivariate normals.

    kind_i ~ Bernoulli(w),   (eruption_i, waiting_i) | kind_i = k ~ Normal(m_k, Σ_k)
    Σ_k has standard deviations s_k and correlation ρ_k

Parameters: `weight` = w, the share of long eruptions; `mean` = m (kinds, 2); `sd` = s (kinds, 2);
`correlation` = ρ (kinds,). The kinds may change places: each starts at values that one reads off the scatter plot.
Summed out: `kind` (eruptions,), 0 a short eruption and 1 a long one.

Data: data/faithful.csv, 272 eruptions: duration and waiting time to the next, both in minutes
(Azzalini & Bowman 1990, Applied Statistics 39, 357-365, as in Härdle 1991).
Reference: Scrucca, Fop, Murphy & Raftery (2016), mclust 5, The R Journal 8(1), 289-317: the model "VVV" with two kinds.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(eruptions: Tensor, waiting: Tensor) -> None:
    weight = pyro.param("weight", torch.tensor(0.5), constraint=constraints.unit_interval)
    mean = pyro.param("mean", torch.tensor([[2.0, 55.0], [4.5, 80.0]]))
    sd = pyro.param("sd", torch.tensor([[0.5, 6.0], [0.5, 6.0]]), constraint=constraints.positive)
    correlation = pyro.param("correlation", torch.zeros(2), constraint=constraints.interval(-1.0, 1.0))

    rest = (1.0 - correlation.square()).sqrt()
    tril = torch.stack([torch.ones(2), torch.zeros(2), correlation, rest], -1).reshape(2, 2, 2)
    scale_tril = sd[..., None] * tril  # (kinds, 2, 2)
    with pyro.plate("eruptions", len(eruptions)):
        kind = pyro.sample("kind", dist.Bernoulli(weight)).long()
        y = torch.stack([eruptions, waiting], -1)
        pyro.sample("y", dist.MultivariateNormal(mean[kind], scale_tril=scale_tril[kind]), obs=y)
