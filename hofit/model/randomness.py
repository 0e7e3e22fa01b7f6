"""The state of every random generator that a model may draw from: torch's, numpy's, Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch

RandomState = dict[str, Any]


def capture_random_state() -> RandomState:
    """The present state, made of tensors, numbers, strings and containers of these."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    state: RandomState = {
        "torch": torch.get_rng_state(),
        "python": (version, torch.tensor(internal), gauss),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: RandomState) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def set_seed(seed: int) -> None:
    """Seed torch, numpy and Python, as Pyro does."""
    if torch.accelerator.is_available():
        pyro.set_rng_seed(seed)
        return
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a stack for each device there might be
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the generators as they were found."""
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)
