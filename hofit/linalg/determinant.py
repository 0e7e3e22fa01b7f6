"""Log determinants under a name of their own: who watches a model sees one function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..linear.sparse_log_determinant import sparse_log_determinant
from ..linear.sparsity import Sparsity
from .null_space import NullSpace


def log_determinant_of_values(values: Tensor, sparsity: Sparsity, null: NullSpace | None) -> Tensor:
    """log det of the matrix with these values. Shapes: values (…, S) → (…)."""
    if has_torch_function((values,)):
        found: Tensor = handle_torch_function(log_determinant_of_values, (values,), values, sparsity, null)
        return found
    held = values if null is None else null.held(sparsity, values)
    each = [sparse_log_determinant(sparsity, one) for one in held.reshape(-1, held.shape[-1])]
    total = torch.stack(each).reshape(values.shape[:-1])
    return total if null is None else total + null.constant
