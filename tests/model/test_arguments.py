"""What the model is called with: load_data, conversion, the digest."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hofit.errors import DataError, HofitError, ModelError
from hofit.model.arguments import call_load_data, check_signature, digest_arguments, digest_callable, merge, to_tensors

CPU = torch.device("cpu")


def converted(value: Any) -> Any:
    return to_tensors({"x": value}, CPU)["x"]


# load_data --------------------------------------------------------------------------------------------------------


def test_load_data_gets_its_options_and_the_path() -> None:
    def load_data(path: str, rows: int, *, flag: bool = False) -> dict[str, Any]:
        return {"got": (path, rows, flag)}

    assert call_load_data(load_data, {"rows": 3}, Path("d.csv")) == {"got": ("d.csv", 3, False)}


def test_load_data_without_a_path_argument_gets_none() -> None:
    assert call_load_data(lambda: {"x": 1}, {}, Path("d.csv")) == {"x": 1}


def _needs_rows(rows: int) -> dict[str, Any]:
    return {"n": rows}


def _needs_path(path: str) -> dict[str, Any]:
    return {"p": path}


@pytest.mark.parametrize(
    ("load_data", "options", "says"),
    [
        (_needs_rows, {"row": 1, "rows": 1}, '"rows"'),
        (_needs_rows, {}, "data.options.rows"),
        (_needs_path, {}, "data.path"),
        (lambda: [1, 2], {}, "list"),
        (lambda: None, {}, "NoneType"),
        (3, {}, "load_data"),
    ],
    ids=["unknown option", "missing option", "missing path", "a list", "None", "no function"],
)
def test_a_load_data_that_does_not_fit_is_a_data_error(load_data: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(HofitError) as caught:
        call_load_data(load_data, options, None)
    assert says in str(caught.value)


def test_a_path_given_twice_is_an_error() -> None:
    with pytest.raises(DataError, match=r"data\.options\.path"):
        call_load_data(_needs_path, {"path": "a"}, Path("b"))


def test_any_option_serves_a_load_data_with_keywords() -> None:
    assert call_load_data(lambda **options: options, {"a": 1}, None) == {"a": 1}


def test_an_error_inside_load_data_shows_the_user_s_line() -> None:
    def load_data() -> dict[str, Any]:
        known: dict[str, Any] = {}
        return {"x": known["nothing"]}

    with pytest.raises(ModelError) as caught:
        call_load_data(load_data, {}, None)
    message = str(caught.value)
    assert "KeyError" in message and "in load_data" in message and 'known["nothing"]' in message


def test_an_argument_given_twice_names_both_givers() -> None:
    with pytest.raises(DataError, match=r"'x'.*load_data.*data\.columns"):
        merge([("load_data", {"x": 1}), ("data.columns", {"x": 2})])


def test_arguments_are_checked_against_the_signature() -> None:
    def model(reaction: Any, days: Any, scale: float = 1.0) -> None: ...

    wrong = check_signature(model, "model", {"reactoin": 1, "days": 2})
    assert len(wrong) == 2
    assert "'reactoin'" in wrong[0] and '"reaction"' in wrong[0]
    assert "'reaction'" in wrong[1]
    assert check_signature(model, "model", {"reaction": 1, "days": 2}) == []
    assert check_signature(lambda **anything: None, "model", {"a": 1}) == []


def test_an_argument_whose_name_is_no_string_is_named() -> None:
    def model(x: Any) -> None: ...

    assert any("1" in wrong for wrong in check_signature(model, "model", {1: 2, "x": 3}))  # type: ignore[dict-item]


# conversion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "value",
    [
        np.array([1.0, 2.0], dtype=np.float32),
        np.array([1.0, 2.0]),
        np.array([1.0, 2.0], dtype=">f8"),
        np.array([2.0, 1.0])[::-1],
        [1.0, 2.0],
        [1, 2.0],
        (1.0, 2.0),
        [np.float32(1.0), np.float32(2.0)],
        torch.tensor([1.0, 2.0], dtype=torch.float32),
        torch.tensor([1.0, 2.0], dtype=torch.float64),
    ],
    ids=["float32", "float64", "big-endian", "reversed", "list", "mixed", "tuple", "numpy scalars", "tensor32", "t64"],
)
def test_floating_arrays_and_lists_get_the_run_s_dtype(value: Any, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    found = converted(value)
    assert found.dtype == dtype
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1, 2]), torch.tensor([1, 2])),
        (np.array([1, 2], dtype=np.int32), torch.tensor([1, 2], dtype=torch.int32)),
        (np.array([True, False]), torch.tensor([True, False])),
        ([1, 2], torch.tensor([1, 2])),
        ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]])),
        ([True, False], torch.tensor([True, False])),
        ([np.int64(1), np.int64(2)], torch.tensor([1, 2])),
        (torch.tensor([1, 2]), torch.tensor([1, 2])),
    ],
)
def test_integers_and_booleans_stay(value: Any, expected: torch.Tensor) -> None:
    found = converted(value)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def _function() -> None: ...


def _other_function() -> None: ...


@pytest.mark.parametrize("value", [2.5, 3, True, "word", None, _function, object(), ["a", "b"], [], {"a": 1}])
def test_scalars_strings_functions_and_other_objects_go_through_unchanged(value: Any) -> None:
    assert converted(value) is value


def test_an_array_without_dimensions_stays_without() -> None:
    assert converted(np.array(3.0)).shape == ()


def test_a_read_only_array_is_taken_without_a_warning() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    assert converted(array).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "value",
    [[[1, 2], [3]], [1, [2, 3]], [[1], 2], [2**70, 1], np.array([1, 2], dtype=np.longdouble)],
    ids=["ragged", "number and list", "list and number", "too large", "longdouble"],
)
def test_numbers_that_make_no_tensor_are_a_data_error_that_names_the_argument(value: Any) -> None:
    try:
        found = converted(value)
    except DataError as error:
        assert "'x'" in str(error)
    else:
        assert isinstance(value, np.ndarray) and found.tolist() == [1.0, 2.0]


def test_the_model_gets_a_tensor_without_the_caller_s_graph() -> None:
    mine = torch.ones(2, requires_grad=True)
    assert not (converted(mine * 2)).requires_grad


# the digest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001])),
        (torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0]])),
        (torch.tensor([1.0]), torch.tensor([1])),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.zeros(2, dtype=torch.float64), torch.zeros(4, dtype=torch.float32)),
        (1, 2),
        (1, 1.0),
        (1, True),
        (1, "1"),
        (None, "None"),
        (2.5, 2.5000000000000004),
        ("a", "b"),
        (["a", "b"], ["ab"]),
        (["a", ["b"]], [["a"], "b"]),
        ({"k": 1}, {"k": 2}),
        (np.array([1.0]), np.array([2.0])),
        (_function, _other_function),
        (torch.sin, torch.cos),
        (functools.partial(max, 1), functools.partial(max, 2)),
    ],
)
def test_the_digest_changes_with_the_value(one: Any, other: Any) -> None:
    assert digest_arguments({"x": one}) != digest_arguments({"x": other})
    assert digest_arguments({"x": one}) == digest_arguments({"x": one})


def test_the_digest_changes_with_the_name_and_not_with_the_order() -> None:
    assert digest_arguments({"x": 1}) != digest_arguments({"y": 1})
    assert digest_arguments({"x": 1, "y": 2}) == digest_arguments({"y": 2, "x": 1})
    assert digest_arguments({"x": 1, "y": 2}) != digest_arguments({"x": 2, "y": 1})


def test_the_digest_of_a_tensor_does_not_depend_on_its_layout() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert digest_arguments({"x": tensor.T.contiguous()}) == digest_arguments({"x": tensor.T})


@pytest.mark.parametrize("value", [torch.zeros(0), torch.eye(2).to_sparse(), torch.tensor([1j]).conj(), object])
def test_anything_has_a_digest(value: Any) -> None:
    assert len(digest_arguments({"x": value})) == 64


def test_the_digest_of_a_function_changes_with_its_source(tmp_path: Path) -> None:
    digests = []
    for i, body in enumerate(("return x", "return x + 0")):
        path = tmp_path / f"m{i}.py"
        path.write_text(f"def f(x):\n    {body}\n")
        namespace: dict[str, Any] = {"__name__": "m"}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        digests.append(digest_callable(namespace["f"]))
    assert digests[0] != digests[1]
