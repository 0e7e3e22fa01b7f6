import pyro
import pyro.distributions as dist
import torch


def model(counts):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    pyro.sample("counts", dist.Multinomial(8, probs=p), obs=counts)
