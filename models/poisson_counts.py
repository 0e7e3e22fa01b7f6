"""Epileptic seizures: overdispersed Poisson counts, with an effect of the patient and one of every single count.

    seizures_i ~ Poisson(exp(x_i · β + u_p + e_i)),   p = patient_i
    x_i = (1, log(base/4), treated, treated · log(base/4), log age, last visit)
    u_p ~ Normal(0, τ_patient),   e_i ~ Normal(0, τ_visit)

log(base/4) is the log rate before treatment; it is centred over the counts, and log age too.
Parameters, on the log scale: `beta` = β (6,), `sd_patient` = τ_patient, `sd_visit` = τ_visit.
Latents: `patient_effect` = u (patients,), `visit_effect` = e (counts,), which take up what a Poisson leaves over.
With them free, hold the scales: at τ → 0 the joint density has no bound.

Data: data/epilepsy.csv, seizures in the two weeks before each of four visits, 59 patients on placebo or progabide;
`base` counts the eight weeks before (Thall & Vail 1990, Biometrics 46, 657-671).
Reference: Breslow & Clayton (1993), J. American Statistical Association 88, 9-25, section 6.2, model III.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

LAST_VISIT = 4
WEEKS_RATIO = 4  # base counts eight weeks, a visit two


def model(
    seizures: Tensor, base: Tensor, age: Tensor, treated: Tensor, visit: Tensor, patient: Tensor, n_patients: int
) -> None:
    beta = pyro.param("beta", torch.zeros(6))
    sd_patient = pyro.param("sd_patient", torch.tensor(1.0), constraint=constraints.positive)
    sd_visit = pyro.param("sd_visit", torch.tensor(1.0), constraint=constraints.positive)

    with pyro.plate("patients", n_patients):
        patient_effect = pyro.sample("patient_effect", dist.Normal(0.0, sd_patient))  # (patients,)

    mean = design(base, age, treated, visit) @ beta + patient_effect[patient]
    with pyro.plate("counts", len(seizures)):
        visit_effect = pyro.sample("visit_effect", dist.Normal(0.0, sd_visit))  # (counts,)
        pyro.sample("seizures", dist.Poisson((mean + visit_effect).exp()), obs=seizures)


def design(base: Tensor, age: Tensor, treated: Tensor, visit: Tensor) -> Tensor:
    """The rows x_i, (counts, 6)."""
    log_base, log_age = (base / WEEKS_RATIO).log(), age.log()
    log_base, log_age = log_base - log_base.mean(), log_age - log_age.mean()
    treated, last = treated.to(base.dtype), (visit == LAST_VISIT).to(base.dtype)
    return torch.stack([torch.ones_like(base), log_base, treated, treated * log_base, log_age, last], -1)
