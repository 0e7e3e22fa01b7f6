"""Everything that the model is called with: table columns, load_data, constants; and a digest of it."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, HofitError, ModelError
from .faults import hint, user_fault
from .module import did_you_mean

OPTIONS = ("data", "options")


def call_load_data(load_data: Callable[..., Any], options: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """The mapping that the module's ``load_data`` returns, called with ``options`` and, if it takes it, ``path``.

    Raises: DataError for an option it does not take, what it raises when it has options, or a result that is no
    mapping; ModelError when it raises without any.
    """
    if not callable(load_data):
        raise DataError(f"load_data must be a function, not {type(load_data).__name__} {load_data!r:.40}")
    arguments = dict(options)
    parameters = inspect.signature(load_data).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if path is not None and "path" in parameters:
        if "path" in arguments:
            raise DataError("leave data.options.path out: data.path gives the path", (*OPTIONS, "path"))
        arguments["path"] = str(path)
    for name in arguments:
        if name not in parameters and not takes_any:
            known = [p for p in parameters if p != "path"]
            raise DataError(f"load_data does not take data.options.{name}{did_you_mean(name, known)}", (*OPTIONS, name))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and name not in arguments:
            where = ("data", "path") if name == "path" else (*OPTIONS, name)
            raise DataError(f"load_data needs {'.'.join(where)}", where)
    try:
        result = load_data(**arguments)
    except HofitError:
        raise
    except (Exception, SystemExit) as error:
        failed = f"load_data failed: {user_fault(error)}{hint(error)}"
        raise (DataError(failed, OPTIONS) if options else ModelError(failed)) from error
    if not isinstance(result, Mapping):
        raise DataError(f"load_data must return a mapping of keyword arguments, not {type(result).__name__}")
    for name in result:
        if not isinstance(name, str):
            raise DataError(f"load_data must return a mapping of keyword arguments, but a key is {name!r}")
    return dict(result)


def merge(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """One mapping of all; a name that two parts give is an error that names both."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for label, part in parts:
        for name, value in part.items():
            if name in merged:
                raise DataError(f"argument {name!r} is given twice: by {origin[name]} and by {label}; leave one out")
            merged[name], origin[name] = value, label
    return merged


def check_signature(model: Callable[..., Any], name: str, arguments: Mapping[str, Any]) -> list[str]:
    """What does not fit between the model's signature and the arguments, a sentence each."""
    try:
        target = model.forward if isinstance(model, torch.nn.Module) else model
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [
        f"argument {argument!r}: {name} does not take it{did_you_mean(str(argument), named)}"
        for argument in arguments
        if argument not in named and not takes_any
    ]
    wrong += [
        f"{name} needs the argument {n!r}: give it by data.columns, data.arguments or load_data{_count_hint(n)}"
        for n in named
        if parameters[n].default is inspect.Parameter.empty and n not in arguments
    ]
    return wrong


def _count_hint(name: str) -> str:
    """How a number of levels is given, for names that ask for one."""
    return (
        f"; for a number of levels, write levels: {name} beside codes: true" if name.startswith(("n_", "num_")) else ""
    )


def to_tensors(arguments: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Numpy arrays and lists of numbers become tensors; floating ones get the default dtype; all move to the device.

    Scalars, strings, None, functions and other objects go through unchanged.
    """
    return {name: _to_tensor(name, value, device) for name, value in arguments.items()}


def _to_tensor(name: str, value: Any, device: torch.device) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = torch.from_numpy(native(value))
    elif isinstance(value, (list, tuple)) and value and _all_numbers(value):
        try:
            value = torch.tensor(value)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise DataError(f"argument {name!r}: a list of lists must be rectangular: {error}") from error
    if isinstance(value, Tensor):
        value = value.detach()
        if value.is_floating_point():
            value = value.to(torch.get_default_dtype())
        return value.to(device)
    return value


def native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of a numeric array that torch can take: this machine's byte order, at most 64 bits, writable."""
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    return np.array(array, dtype=dtype, order="C", copy=True)


def _all_numbers(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return all(_all_numbers(v) for v in values)
    return isinstance(values, (int, float, np.number, np.bool_))


def digest_arguments(arguments: Mapping[str, Any]) -> str:
    """SHA-256 over the arguments: tensors, numbers and strings by value, functions by qualified name and source."""
    digest = hashlib.sha256()
    for name in sorted(arguments):
        digest.update(repr(name).encode())
        _update(digest, arguments[name])
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} {value.layout}".encode())
        value = value.to_dense() if value.layout is not torch.strided else value
        digest.update(
            value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        )
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        digest.update(b"mapping")
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _update(digest, value[key])
    elif isinstance(value, (list, tuple, np.ndarray)):
        digest.update(f"sequence {len(value)}".encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, (str, bytes, int, float, complex, bool, type(None))):
        digest.update(f"{type(value).__name__} {value!r}".encode())
    elif isinstance(value, functools.partial):
        _update(digest, [value.func, value.args, value.keywords])
    elif isinstance(value, torch.nn.Module):
        digest.update(f"module {type(value).__qualname__}".encode())
    else:
        named = value if hasattr(value, "__qualname__") else type(value)
        digest.update(f"object {named.__module__}.{named.__qualname__}".encode())
        with suppress(OSError, TypeError):
            digest.update(inspect.getsource(named).encode())


def digest_callable(function: Callable[..., Any]) -> str:
    """SHA-256 of a callable by qualified name and source."""
    digest = hashlib.sha256()
    _update(digest, function)
    return digest.hexdigest()
