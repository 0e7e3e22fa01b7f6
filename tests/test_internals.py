"""What hofit takes of torch's and Pyro's insides is there, and does what it is taken for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam
from torch.distributions import constraints

from hofit import internals


def test_a_leaf_is_replaced_in_the_store_to_the_last_bit() -> None:
    store = pyro.get_param_store()
    pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    leaf = torch.tensor(0.1, requires_grad=True)
    internals.replace_leaf(store, "scale", leaf)
    assert internals.unconstrained_params(store)["scale"] is leaf
    assert store["scale"].unconstrained() is leaf and store.param_name(leaf) == "scale"
    assert len(list(store.named_parameters())) == 1
    assert internals.store_constraints(store)["scale"] is constraints.positive


def test_a_plate_asks_what_was_put_in_the_place_of_its_own_way_to_draw() -> None:
    asked: list[str] = []

    def draw(name: str, *rest: Any) -> Any:
        asked.append(name)
        return before(name, *rest)

    before = internals.swap_subsampling(draw)
    try:
        pyro.plate("rows", 10, subsample_size=3)
    finally:
        ours = internals.swap_subsampling(before)
    assert asked == ["rows"] and ours is draw
    pyro.plate("others", 10)
    assert asked == ["rows"]


def test_a_pyro_optimizer_s_state_is_that_of_the_leaf_it_belongs_to() -> None:
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    first, second = Adam({"lr": 0.1}), Adam({"lr": 0.1})
    leaf.grad = torch.tensor([1.0, -1.0])
    first([leaf])
    internals.restore_optimizer(second, leaf, internals.optimizer_state(first.optim_objs[leaf]))
    state = second.optim_objs[leaf].state[leaf]
    assert state["step"] == 1 and torch.equal(state["exp_avg"], first.optim_objs[leaf].state[leaf]["exp_avg"])


@pytest.mark.parametrize("validated", [True, False])
def test_torch_s_own_flag_of_validation_is_read(validated: bool) -> None:
    before = internals.distributions_are_validated()
    try:
        torch.distributions.Distribution.set_default_validate_args(validated)
        assert internals.distributions_are_validated() is validated
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_a_tensor_s_version_counts_what_was_written_in_place() -> None:
    tensor = torch.zeros(2)
    before = internals.version(tensor)
    tensor.add_(1.0)
    assert internals.version(tensor) == before + 1


def test_a_node_of_the_graph_tells_the_dtype_of_what_it_has_computed() -> None:
    leaf = torch.zeros(2, requires_grad=True)
    narrowed = leaf.to(torch.float32)
    assert narrowed.grad_fn is not None and internals.result_dtypes(narrowed.grad_fn) == [torch.float32]
    assert internals.result_dtypes(narrowed.grad_fn.next_functions[0][0]) == [torch.float64]


def test_a_masked_distribution_tells_its_mask() -> None:
    assert internals.mask_of(dist.Normal(0.0, 1.0).mask(False)) is False


def test_the_light_paths_leave_it_alone() -> None:
    """`hofit --help` and `hofit report` start without torch."""
    code = "import sys, hofit, hofit.cli.app; print('hofit.internals' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "False"
