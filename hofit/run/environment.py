"""What surrounds a run: dtype, device, seed, threads, Pyro's parameter store, and the versions of what it runs on."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import pyro
import torch

from ..config.schema import Config
from ..internals import distributions_are_validated
from ..model.randomness import random_state_kept, set_seed
from ..point import Params
from ..version import __version__
from .compiler import compiler_left_out
from .memory import keep_large_temporaries


@contextmanager
def environment(config: Config) -> Iterator[None]:
    """The run's dtype, device and seed; a parameter store of its own. All is put back on leaving."""
    keep_large_temporaries()
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    validated, poutine_validated = distributions_are_validated(), pyro.poutine.is_validation_enabled()
    store = pyro.get_param_store().scope()
    with random_state_kept(), store, pyro.validation_enabled(poutine_validated), compiler_left_out():
        try:
            torch.set_default_dtype(getattr(torch, config.dtype))
            if torch.device(config.device).type != "cpu":  # a default device slows every call
                torch.set_default_device(config.device)
            set_seed(config.seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(device)
            torch.distributions.Distribution.set_default_validate_args(validated)


SMALL = 100_000
"""Numbers in the data and the parameters below which one thread is taken: torch splits no elementwise operation of less
than 32,768, and on a busy machine two threads make a small factorisation a hundred times slower than one."""


def threads_for(asked: int | None, arguments: Mapping[str, Any], params: Params) -> int:
    """The threads of a fit: those asked for, or one where the data and the parameters are small."""
    if asked is not None:
        return asked
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)] + list(params.values())
    return 1 if sum(tensor.numel() for tensor in tensors) < SMALL else torch.get_num_threads()


def device_mistake(device: str) -> str | None:
    """Why a device cannot be used here; None if it can."""
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return f"no device {device!r} here: {str(error).splitlines()[0]}; device: cpu is always there"
    return None if kind != "meta" else "the meta device holds no numbers"


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "hofit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro-ppl": _of_pyro(),
    }


@cache
def _of_pyro() -> str:
    """Read from its files once: that takes a millisecond, and each of a thousand fits asks."""
    return metadata.version("pyro-ppl")
