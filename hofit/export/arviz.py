"""Groups of draws for ArviZ: an InferenceData, or the DataTree that took its place in ArviZ 1, and their file.

There is one chain: the draws are independent. A name with a slash would be a group of the file's, so it has a dot.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HofitError
from ..version import __version__
from .groups import Group, Variable

HINT = "ArviZ is not installed: pip install 'hofit[arviz]'"

OWN_DIMS = ("chain", "draw")

Labels = Mapping[str, Sequence[object]]
"""Plate → what its rows are called."""


def inference_data(groups: Mapping[str, Group], attributes: Mapping[str, Any], labels: Labels | None = None) -> Any:
    """What ArviZ's functions take. Raises: HofitError where ArviZ is not installed."""
    az, xarray = _libraries()
    named = {group: _named(variables) for group, variables in groups.items()}
    variables = [name for group in named.values() for name in group]
    dims = _Dims(variables, labels or {})
    sets = {}
    for group, members in named.items():
        sets[group] = xarray.Dataset(
            {name: dims.array(xarray, name, variable) for name, variable in members.items()}, attrs=dict(attributes)
        )
    if hasattr(az, "InferenceData"):
        return az.InferenceData(**sets)
    return xarray.DataTree.from_dict(sets)


def attributes(objective: str, status: str, seed: int, remarks: Sequence[str]) -> dict[str, Any]:
    """What is written on every group: where it comes from, and what is to be said of it."""
    about = {
        "inference_library": "hofit",
        "inference_library_version": __version__,
        "sampling": "independent draws from the Gaussian at the mode",
        "objective": objective,
        "status": status,
        "seed": seed,
    }
    return {**about, "remarks": "; ".join(remarks)} if remarks else about


def write_netcdf(path: Path, data: Any) -> None:
    """The file that ``arviz.from_netcdf`` reads."""
    data.to_netcdf(str(path), engine="h5netcdf")


def _libraries() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that a next version of ArviZ will be another
            import arviz
            import h5netcdf  # noqa: F401
            import xarray
    except ImportError as error:
        raise HofitError(HINT) from error
    return arviz, xarray


def check_installed() -> None:
    """Raises: HofitError where ArviZ is not there, before anything is computed for it."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("arviz", "h5netcdf", "xarray")):
        raise HofitError(HINT)


def _named(variables: Group) -> Group:
    found: Group = {}
    for name, variable in variables.items():
        found[_free(name.replace("/", "."), found)] = variable
    return found


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, with as many underscores after it as it takes to be another than those taken."""
    known = set(taken)
    while name in known:
        name += "_"
    return name


class _Dims:
    """What the dimensions are called: by their plates, one name for one size, and never as a variable."""

    def __init__(self, variables: Iterable[str], labels: Labels) -> None:
        self.taken = {*variables, *OWN_DIMS}
        self.labels = labels
        self.sizes: dict[str, int] = {}

    def array(self, xarray: Any, name: str, variable: Variable) -> Any:
        values = variable.values.cpu().numpy()
        shape = values.shape[1:] if variable.drawn else values.shape
        dims, coords = [], {}
        for place, (plate, size) in enumerate(zip(variable.dims, shape, strict=True)):
            dim = self._dim(name, place, plate, size)
            dims.append(dim)
            coords[dim] = self._coordinate(plate, size)
        if not variable.drawn:
            return xarray.DataArray(values, coords, dims)
        drawn = {"chain": np.arange(1), "draw": np.arange(len(values))}
        return xarray.DataArray(values[None], {**drawn, **coords}, [*OWN_DIMS, *dims])

    def _dim(self, name: str, place: int, plate: str | None, size: int) -> str:
        own = f"{name}_dim_{place}"
        dim = own if plate is None else plate.replace("/", ".")
        dim = f"{dim}_plate" if plate is not None and dim in self.taken else dim
        if self.sizes.setdefault(dim, size) != size:
            dim = _free(own, [known for known, of in self.sizes.items() if of != size])
            self.sizes[dim] = size
        return dim

    def _coordinate(self, plate: str | None, size: int) -> Any:
        labels = self.labels.get(plate, ()) if plate is not None else ()
        return np.asarray(labels) if len(labels) == size and size else np.arange(size)
