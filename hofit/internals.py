"""What torch and Pyro keep private and hofit needs, in one place: each name with what it is and why it is needed.

Read in torch 2.13.0 and in Pyro 1.9.1 and 1.9.2; the tests run on torch 2.13.0 and Pyro 1.9.2. A new version that has
moved one of them fails here, at import or in tests/test_internals.py. What is called at every iteration is torch's own
function, or an ``attrgetter``, which costs what an attribute costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.optim import PyroOptim
from pyro.optim.optim import _get_state_dict as optimizer_state  # a torch optimizer's state, its parameters left out
from pyro.optim.optim import _load_state_dict as load_optimizer_state
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.subsample_messenger import SubsampleMessenger
from pyro.poutine.subsample_messenger import _Subsample as Subsample  # the distribution of a plate's own sample site
from torch import Tensor
from torch import _foreach_norm as foreach_norm  # one kernel call for many small tensors
from torch import _foreach_sub as foreach_sub
from torch._refs import add as reference_add  # the decomposition of an addition; torch marks it "never compile"
from torch.jit import optimized_execution  # type: ignore[attr-defined]  # whether its interpreter may rewrite a graph
from torch.utils import _pytree as pytree  # the tensors inside an operation's nested arguments
from torch.utils._python_dispatch import TorchDispatchMode  # sees an operation before it is computed

__all__ = [
    "DispatchMode",
    "Subsample",
    "foreach_norm",
    "foreach_sub",
    "load_optimizer_state",
    "optimized_execution",
    "optimizer_state",
    "pytree",
    "reference_add",
]


class DispatchMode(TorchDispatchMode):
    """torch's, but for a mark on its method, "never compile", that imports the compiler: that takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


unconstrained_params: Callable[[ParamStoreDict], dict[str, Tensor]] = attrgetter("_params")
"""Store name → leaf. The public ways give constrained values, or copies of the dictionary."""

store_constraints: Callable[[ParamStoreDict], Mapping[str, Any]] = attrgetter("_constraints")
"""Store name → constraint; Pyro has no public way to ask for one."""

version: Callable[[Tensor], int] = attrgetter("_version")
"""How often a tensor was written to in place: whether it is still the one that was looked at."""

packed_dims: Callable[[Tensor], str] = attrgetter("_pyro_dims")
"""The symbol of each dimension of a packed tensor, where Pyro's contraction over plates looks for it."""


def result_dtypes(node: Any) -> list[torch.dtype]:
    """The dtypes of what a node of the graph has computed; a leaf's own node has its own."""
    return [one.dtype for one in attrgetter("_input_metadata")(node)]


schema_of: Callable[[Any], Any] = attrgetter("_schema")
"""What an operation writes to, by its arguments."""


def memory_of(tensor: Tensor) -> int:
    """Which memory a tensor looks at; one that is known to be zero has none, so its address cannot be asked for."""
    address: int = attrgetter("_cdata")(tensor.untyped_storage())
    return address


mask_of: Callable[[MaskedDistribution], Tensor | bool] = attrgetter("_mask")
"""What a masked distribution counts; False where it counts nothing."""

DETERMINISTIC = "_deterministic"
"""Key of a site's ``infer``: it is a `pyro.deterministic` one, not an observed Delta."""

MARKOV_SCOPE = "_markov_scope"
"""Key of a site's ``infer``: it stands inside `pyro.markov`."""

ENUMERATE_DIM = "_enumerate_dim"
"""Key of an enumerated site's ``infer``: the dimension along which its values lie."""

DIM_TO_ID = "_dim_to_id"
"""Key of a site's ``infer``: enumerated dimension → the identity of the latent whose values lie there, at this site."""

NEVER_COMPILED = "__dynamo_disable"
"""The attribute in which torch keeps a function made "never compile", once it has made it (torch/_compile.py)."""

_BY_NAME = attrgetter("_param_to_name")
_SUBSAMPLE, _PACKED_DIMS = "_subsample", "_pyro_dims"


def swap_subsampling(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Have every plate ask ``draw`` for its size, its subsample's size and the rows drawn; returns what they asked.

    Pyro has no switch that turns subsampling off.
    """
    before: Callable[..., Any] = getattr(SubsampleMessenger, _SUBSAMPLE)
    setattr(SubsampleMessenger, _SUBSAMPLE, staticmethod(draw))
    return before


def replace_leaf(store: ParamStoreDict, name: str, leaf: Tensor) -> None:
    """Put another leaf under a name of the store; the public way would go through its constrained value, and round."""
    params, by_name = unconstrained_params(store), _BY_NAME(store)
    by_name.pop(params[name], None)
    params[name] = leaf
    by_name[leaf] = name


def with_packed_dims(tensor: Tensor, dims: str) -> Tensor:
    """The tensor, with the symbols of its dimensions written on it."""
    setattr(tensor, _PACKED_DIMS, dims)
    return tensor


def restore_optimizer(optim: PyroOptim, leaf: Tensor, state: Mapping[str, Any]) -> None:
    """Make a `PyroOptim`'s torch optimizer of one leaf again; it would make its own only once it had stepped."""
    optim.optim_objs[leaf] = methodcaller("_get_optim", leaf)(optim)
    optim.grad_clip[leaf] = methodcaller("_get_grad_clip", leaf)(optim)
    load_optimizer_state(optim.optim_objs[leaf], state)


def distributions_are_validated() -> bool:
    """torch's default for ``validate_args``: there is a way to set it, and none to ask for it."""
    validated: bool = attrgetter("_validate_args")(torch.distributions.Distribution)
    return validated


def lacks_derivative(error: BaseException) -> bool:
    """Whether torch says that it has no derivative of a function, or none of such an order."""
    text = str(error)
    return isinstance(error, NotImplementedError) or "derivative for" in text or "once_differentiable" in text
