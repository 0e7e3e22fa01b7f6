"""Nested state ↔ JSON and tensors; no pickle anywhere.

Tensors leave the tree for a flat dict and are referred to by key. JSON has no tuples and no keys that are numbers, so
those are tagged. Floats keep every bit (Python writes the shortest text that reads back the same).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

_TAG = "__hofit__"


def encode(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """The tree as JSON data; its tensors are added to ``tensors``.

    Raises: TypeError naming the place of anything that is no tensor, number, string, None or container of these.
    """
    if isinstance(tree, Tensor):
        key = path or "tensor"
        tensors[key] = tree.detach().cpu().contiguous().clone()
        return {_TAG: "tensor", "key": key}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, (list, tuple)):
        items = [encode(item, tensors, f"{path}/{i}") for i, item in enumerate(tree)]
        return items if isinstance(tree, list) else {_TAG: "tuple", "items": items}
    if isinstance(tree, dict):
        if all(isinstance(key, str) for key in tree) and _TAG not in tree:
            return {key: encode(value, tensors, f"{path}/{key}") for key, value in tree.items()}
        if all(isinstance(key, (str, int, float, bool)) for key in tree):
            pairs = [[key, encode(value, tensors, f"{path}/{key}")] for key, value in tree.items()]
            return {_TAG: "dict", "pairs": pairs}
    raise TypeError(f"{path or 'state'} is a {type(tree).__name__}, which a checkpoint cannot hold")


def decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``encode``."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get(_TAG)
    if kind == "tensor":
        return tensors[tree["key"]].clone()
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in tree["items"])
    if kind == "dict":
        return {key: decode(value, tensors) for key, value in tree["pairs"]}
    return {key: decode(value, tensors) for key, value in tree.items()}
