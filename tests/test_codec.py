"""Nested state as JSON and tensors, and back to the last bit."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch

from hofit.codec import decode, encode
from hofit.model.randomness import capture_random_state, restore_random_state
from tests.states import same


@pytest.mark.parametrize(
    "tree",
    [
        {"a": torch.randn(3), "b": [1, 2.5, None, True, "x"], "c": (1, (2, torch.tensor(1)))},
        {0: {"step": torch.tensor(2.0)}, 1: {}},
        {"inf": float("inf"), "tiny": 5e-324, "third": 1 / 3},
        {"bytes": torch.arange(5, dtype=torch.uint8), "half": torch.ones(2, dtype=torch.bfloat16)},
        {"__hofit__": "a key of the user's"},
    ],
)
def test_state_comes_back_to_the_last_bit(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(encode(tree, tensors))
    assert same(decode(json.loads(text), tensors), tree)


def test_what_json_and_tensors_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match="a/b is a set"):
        encode({"a": {"b": {1, 2}}}, {})


def test_every_generator_goes_on_where_it_was() -> None:
    def draws() -> tuple[Any, ...]:
        return torch.rand(2).tolist(), random.random(), np.random.standard_normal(3).tolist(), random.gauss(0, 1)

    draws()
    tensors: dict[str, torch.Tensor] = {}
    state = encode(capture_random_state(), tensors)
    expected = draws()
    draws()
    restore_random_state(decode(state, tensors))
    assert draws() == expected
