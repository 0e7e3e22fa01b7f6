"""What surrounds a run, and that all of it is put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyro
import pytest
import torch

from hofit.config.schema import Config
from hofit.internals import distributions_are_validated
from hofit.run.environment import SMALL, device_mistake, environment, threads_for


def surroundings() -> tuple[Any, ...]:
    validates = distributions_are_validated()
    draws = random.getstate()[1][:3], str(np.random.get_state()), torch.get_rng_state().sum().item()
    store = sorted(pyro.get_param_store())
    return torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), validates, draws, store


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back_even_after_a_failure(fails: bool) -> None:
    pyro.param("mine", torch.tensor(1.0))
    config = Config.model_validate({"dtype": "float32", "optimizers": [{"params": "*", "optimizer": "adam"}]})
    before = surroundings()
    try:
        with environment(config):
            assert torch.get_default_dtype() is torch.float32 and not list(pyro.get_param_store())
            torch.set_num_threads(torch.get_num_threads() + 1)
            torch.rand(3), random.random(), np.random.rand(2)
            pyro.param("theirs", torch.tensor(2.0))
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert surroundings() == before


def test_the_seed_decides_what_is_drawn_inside() -> None:
    def drawn(seed: int) -> list[float]:
        entry = {"params": "*", "optimizer": "adam"}
        with environment(Config.model_validate({"seed": seed, "optimizers": [entry]})):
            return [*torch.rand(2).tolist(), random.random(), float(np.random.rand())]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_small_model_has_one_thread_unless_more_are_asked_for() -> None:
    many = torch.get_num_threads()
    assert threads_for(None, {"y": torch.ones(SMALL // 2), "n": 3}, {"b": torch.ones(9)}) == 1
    assert threads_for(None, {"y": torch.ones(SMALL)}, {}) == many
    assert threads_for(3, {}, {}) == 3


def test_a_device_that_is_not_there_is_named() -> None:
    assert device_mistake("cpu") is None
    assert device_mistake("meta") == "the meta device holds no numbers"
    assert "no device 'nowhere' here: " in str(device_mistake("nowhere"))
