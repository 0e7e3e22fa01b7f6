"""One run of `second_order.py` under NumPyro: the job is a JSON file, named on the command line; the data come as .npz.

The models are those of `models/`, in NumPyro; SVI's loss with AutoDelta is minus their log density. What runs is
`numpyro.optim.Minimize`, or Adam, inside `SVI.update`, compiled before the clock starts; a callback at every gradient
records it, and its own time is left out.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta
from numpyro.infer.initialization import init_to_value

Array = Any
Model = Callable[..., None]

DENSE_LIMIT = 6000
"""Unknowns up to which BFGS is run: it holds several dense matrices of the inverse Hessian, 300 MB each here."""

JAX_NAMES = {"BFGS": "BFGS", "l-bfgs": "l-bfgs-experimental-do-not-rely-on-this"}
MANY = 1_000_000
PLATEAU_STEPS, PLATEAU_CHANGE = 1000, 1e-10


def hierarchical_nested(x: Array, y: Array) -> None:
    groups = numpyro.plate("groups", x.shape[0], dim=-2)
    rows = numpyro.plate("rows", x.shape[1], dim=-1)
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 2.5).to_event(1))
    with groups:
        b = numpyro.sample("b", dist.Normal(0.0, jnp.array([0.8, 0.5])).to_event(1))
    line = beta + b
    with groups, rows:
        numpyro.sample("y", dist.Bernoulli(logits=line[..., 0] + line[..., 1] * x), obs=y)


def hierarchical_indexed(x: Array, y: Array, group: Array, n_groups: int) -> None:
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 2.5).to_event(1))
    with numpyro.plate("groups", n_groups):
        b = numpyro.sample("b", dist.Normal(0.0, jnp.array([0.8, 0.5])).to_event(1))
    line = beta + b[group]
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=line[:, 0] + line[:, 1] * x), obs=y)


def item_response_nested(y: Array) -> None:
    persons = numpyro.plate("persons", y.shape[0], dim=-2)
    items = numpyro.plate("items", y.shape[1], dim=-1)
    with persons:
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    with items:
        log_a = numpyro.sample("log_a", dist.Normal(0.0, 0.5))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with persons, items:
        numpyro.sample("y", dist.Bernoulli(logits=jnp.exp(log_a) * (theta - b)), obs=y)


def item_response_indexed(y: Array, person: Array, item: Array, n_persons: int, n_items: int) -> None:
    with numpyro.plate("persons", n_persons):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", n_items):
        log_a = numpyro.sample("log_a", dist.Normal(0.0, 0.5))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("answers", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=jnp.exp(log_a)[item] * (theta[person] - b[item])), obs=y)


def gaussian_process(x: Array, y: Array) -> None:
    lengthscale = numpyro.param("lengthscale", jnp.array(1.0), constraint=constraints.positive)
    amplitude = numpyro.param("amplitude", jnp.array(1.0), constraint=constraints.positive)
    noise = numpyro.param("noise", jnp.array(1.0), constraint=constraints.positive)
    distance = (x[:, None] - x) / lengthscale
    covariance = amplitude**2 * jnp.exp(-0.5 * distance**2) + noise**2 * jnp.eye(len(x))
    scale_tril = jnp.linalg.cholesky(covariance)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), scale_tril=scale_tril), obs=y)


def poisson_regression(x: Array, y: Array) -> None:
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(x.shape[1]), 2.5).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Poisson(jnp.exp(x @ beta)), obs=y)


def eight_schools(y: Array, sigma: Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


MODELS: dict[tuple[str, str], Model] = {  # (family, function) in second_order.py
    ("hierarchical_logistic", "nested"): hierarchical_nested,
    ("hierarchical_logistic", "indexed"): hierarchical_indexed,
    ("item_response", "nested"): item_response_nested,
    ("item_response", "indexed"): item_response_indexed,
    ("gaussian_process", "model"): gaussian_process,
    ("poisson_regression", "model"): poisson_regression,
    ("eight_schools", "model"): eight_schools,
}


class Recorder:
    """Seconds, loss and gradient of every evaluation; its own time is left out."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []
        self.begin()

    def begin(self) -> None:
        self.rows.clear()
        self._aside = 0.0
        self._origin = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._origin - self._aside

    def record(self, loss: Array, norm: Array) -> None:
        now = time.perf_counter()
        self.rows.append((now - self._origin - self._aside, float(loss), float(norm)))
        self._aside += time.perf_counter() - now


def recorded(fn: Callable[[Any], tuple[Array, Any]], recorder: Recorder) -> Callable[[Any], tuple[Array, Any]]:
    """The loss, recorded whenever someone takes its gradient."""

    def plain(params: Any) -> Array:
        return fn(params)[0]

    loss_of = jax.custom_vjp(plain)

    def forward(params: Any) -> tuple[Array, Any]:
        loss, gradient = jax.value_and_grad(lambda p: fn(p)[0])(params)
        jax.debug.callback(recorder.record, loss, jnp.abs(ravel_pytree(gradient)[0]).max())
        return loss, gradient

    def backward(gradient: Any, cotangent: Array) -> tuple[Any]:
        return (jax.tree.map(lambda g: cotangent * g, gradient),)

    loss_of.defvjp(forward, backward)
    return lambda params: (loss_of(params), None)


class RecordedMinimize(numpyro.optim.Minimize):
    """Minimize, watched."""

    recorder: Recorder

    def eval_and_update(self, fn: Any, state: Any, forward_mode_differentiation: bool = False) -> Any:
        return super().eval_and_update(recorded(fn, self.recorder), state)


class RecordedAdam(numpyro.optim.Adam):
    """Adam, watched."""

    recorder: Recorder

    def eval_and_update(self, fn: Any, state: Any, forward_mode_differentiation: bool = False) -> Any:
        return super().eval_and_update(recorded(fn, self.recorder), state)


def no_latents(**arguments: Any) -> None:
    """The guide of a model that has parameters only."""


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    problem = asked["problem"]
    name, *assignments = asked["method"].removeprefix("numpyro:").split(",")
    rate = dict(assignment.split("=") for assignment in assignments).get("lr", asked["adam_rate"])
    model = MODELS[problem["family"], problem["function"]]
    arguments = {key: value.item() if value.shape == () else jnp.asarray(value) for key, value in read(asked).items()}
    if problem["fixed"]:
        model = numpyro.handlers.condition(model, data={k: jnp.array(v) for k, v in problem["fixed"].items()})

    with numpyro.handlers.seed(rng_seed=0):
        sites = numpyro.handlers.trace(model).get_trace(**arguments)
    start = {
        site: dist.biject_to(message["fn"].support)(jnp.zeros(jnp.shape(message["value"])))
        for site, message in sites.items()
        if message["type"] == "sample" and not message["is_observed"]
    }
    unknowns = sum(int(np.size(value)) for value in start.values()) or sum(
        int(np.size(message["value"])) for message in sites.values() if message["type"] == "param"
    )
    if name == "BFGS" and unknowns > DENSE_LIMIT:
        return {"skipped": f"BFGS holds dense matrices, {8 * unknowns**2 / 1e9:.3g} GB each: not above {DENSE_LIMIT:,}"}

    recorder = Recorder()
    guide = AutoDelta(model, init_loc_fn=init_to_value(values=start)) if start else no_latents
    optimizer: Any
    if name == "adam":
        optimizer = RecordedAdam(float(rate))
    else:
        options = {"gtol": asked["gradient"], "maxiter": MANY} | ({"ftol": 0.0} if name == "l-bfgs" else {})
        optimizer = RecordedMinimize(JAX_NAMES[name], options=options)
    optimizer.recorder = recorder
    svi = SVI(model, guide, optimizer, Trace_ELBO())
    state = svi.init(jax.random.key(0), **arguments)
    loss_and_gradient = jax.jit(evaluation(svi, state, arguments))
    start_loss, _ = loss_and_gradient(svi.optim.get_params(state.optim_state))

    before = time.perf_counter()
    # Numbers that are not arrays (sizes) are closed over; the data stay arguments, or XLA folds them as constants.
    data = {key: value for key, value in arguments.items() if not isinstance(value, int)}
    sizes = {key: value for key, value in arguments.items() if isinstance(value, int)}
    update = jax.jit(lambda state, data: svi.update(state, **data, **sizes)).lower(state, data).compile()
    compile_seconds = time.perf_counter() - before

    start_mb = peak_mb()
    recorder.begin()
    cpu_before = time.process_time()
    if name == "adam":
        state, end, iterations = run_adam(asked, update, state, data, recorder)
    else:
        state, _ = jax.block_until_ready(update(state, data))
        jax.effects_barrier()
        end, iterations = "", len(recorder.rows)
    total, cpu, peak = recorder.seconds(), time.process_time() - cpu_before, peak_mb()
    loss, norm = loss_and_gradient(svi.optim.get_params(state.optim_state))
    end = end or ("gradient" if float(norm) <= asked["gradient"] else "gave up")  # Minimize keeps its status to itself
    return {
        "trajectory": recorder.rows,
        "total": total,
        "cpu": cpu,
        "end": end,
        "iterations": iterations,
        "loss": float(loss),
        "gradient_norm": float(norm),
        "start_loss": float(start_loss),
        "unknowns": unknowns,
        "peak_mb": peak,
        "start_mb": start_mb,
        "compile_seconds": compile_seconds,
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("numpyro", "jax", "numpy")},
        },
    }


def evaluation(svi: SVI, state: Any, arguments: dict[str, Any]) -> Callable[[Any], tuple[Array, Array]]:
    """The loss and the max-norm of its gradient at unconstrained parameters, SVI's own loss."""

    def loss_of(params: Any) -> Array:
        return svi.loss.loss(state.rng_key, svi.constrain_fn(params), svi.model, svi.guide, **arguments)

    def loss_and_norm(params: Any) -> tuple[Array, Array]:
        loss, gradient = jax.value_and_grad(loss_of)(params)
        return loss, jnp.abs(ravel_pytree(gradient)[0]).max()

    return loss_and_norm


def run_adam(
    asked: dict[str, Any], update: Callable[..., Any], state: Any, data: dict[str, Array], recorder: Recorder
) -> tuple[Any, str, int]:
    lowest, flat = math.inf, 0
    for step in range(1, MANY):
        previous = state
        state, value = update(state, data)
        loss = float(value)
        _, _, norm = recorder.rows[-1]
        if norm <= asked["gradient"]:
            return previous, "gradient", step
        if not math.isfinite(loss):
            return previous, "not finite", step
        flat += 1
        if loss < lowest - PLATEAU_CHANGE * max(1.0, abs(loss)):
            lowest, flat = loss, 0
        if flat >= PLATEAU_STEPS:
            return state, "plateau", step
        if recorder.seconds() > asked["limit"]:
            break
    return state, "time", step


def read(asked: dict[str, Any]) -> dict[str, np.ndarray]:
    with np.load(asked["data"]) as arrays:
        return dict(arrays)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    cores = sorted(os.sched_getaffinity(0))[: asked["threads"]]
    os.sched_setaffinity(0, cores)  # XLA has as many threads as it finds cores
    jax.config.update("jax_enable_x64", True)
    Path(asked["out"]).write_text(json.dumps(measure(asked)))


if __name__ == "__main__":
    main()
