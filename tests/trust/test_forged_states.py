"""A digest is no signature: whatever stands in place of a part of a checkpoint's state, a resume says so in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyro
import pytest
import safetensors
import torch

import hofit
from hofit.errors import HofitError
from hofit.fitting import loop
from hofit.record import CHECKPOINT
from tests.run.test_checkpoint import forged
from tests.trust.old import FITS, KEPT

NEWEST = max(KEPT.iterdir())
MADE_UP: dict[str, Any] = {"text": "x", "a number": -7.5, "nothing": None}
HOW = ("left out", "tensors of another shape", *MADE_UP)
FEW = 25
"""Forgeries of a checkpoint in the fast slice."""
SOME_FITS = ("adam", "trust_region", "newton_cg", "lbfgs")

Place = tuple[Any, ...]


def places(tree: Any, here: Place = ()) -> Iterator[Place]:
    """Of all that a nested state holds; of long lists the first entries."""
    for key in tree if isinstance(tree, dict) else range(min(len(tree), 8)) if isinstance(tree, list) else ():
        yield (*here, key)
        yield from places(tree[key], (*here, key))


def forgeries(path: Path) -> list[tuple[Place, str]]:
    with safetensors.safe_open(path, framework="pt") as file:
        body = json.loads(file.metadata()["hofit"])
    return [
        (place, how)
        for part in ("optimizer", "loop", "random_now", "inner")
        for place in places(body[part], (part,))
        for how in HOW
        if how != "tensors of another shape" or place[-1] == "key"
    ]


def forge(path: Path, place: Place, how: str) -> None:
    def change(body: Any, tensors: dict[str, torch.Tensor]) -> None:
        *way, last = place
        for key in way:
            body = body[key]
        if how == "left out":
            del body[last]
        elif how in MADE_UP:
            body[last] = MADE_UP[how]
        else:
            tensors[body[last]] = torch.zeros(2, 5, dtype=tensors[body[last]].dtype)

    forged(path, change)


def unsaid(folder: Path, name: str, place: Place, how: str) -> str | None:
    """What a resume of a forged checkpoint raises that is no message; None where it ends, or is refused in words."""
    (folder / "run").mkdir(parents=True)
    path = Path(shutil.copyfile(NEWEST / f"{name}.safetensors", folder / "run" / CHECKPOINT))
    forge(path, place, how)
    pyro.clear_param_store()
    stop = [f"stop.max_iterations={FITS[name].halfway + 2}"]
    try:
        result = hofit.resume(path, model=FITS[name].model, set=stop, allow_changed=True)
    except HofitError:
        return None
    except Exception as error:
        return f"{place} {how}: {error!r}"
    finite = all(bool(torch.isfinite(value).all()) for value in result.params.values())
    return None if finite else f"{place} {how}: {result.params}"


@pytest.mark.parametrize("name", SOME_FITS)
def test_a_state_of_anything_is_refused_in_words(tmp_path: Path, full: bool, name: str) -> None:
    chosen = forgeries(NEWEST / f"{name}.safetensors")
    if not full:
        chosen = [chosen[number * len(chosen) // FEW] for number in range(FEW)]
    found = [unsaid(tmp_path / str(number), name, *one) for number, one in enumerate(chosen)]
    assert [one for one in found if one] == []


def test_a_loop_that_steps_without_its_guard_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = next(one for one, _ in forgeries(NEWEST / "adam.safetensors") if one[-1] == "exp_avg")
    assert unsaid(tmp_path / "guarded", "adam", place, "text") is None
    monkeypatch.setattr(loop, "taken_up", nullcontext)
    assert unsaid(tmp_path / "bare", "adam", place, "text") is not None
