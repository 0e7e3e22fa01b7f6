"""hofit optimizers: what there is, with options and defaults."""

from __future__ import annotations

import pytest

from tests.command_line import Hofit


def test_optimizers_lists_every_optimizer_and_schedule(hofit: Hofit) -> None:
    outcome = hofit("optimizers")
    assert outcome.code == 0
    for name in ("adam", "adamw", "rmsprop", "clipped_adam", "sgd", "newton", "exponential", "reduce_on_plateau"):
        assert name in outcome.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"lr": "0.001", "betas": "(0.9, 0.999)", "weight_decay": "0"}),
        ("newton", {"trust_radius": ""}),
        ("exponential", {"gamma": "required"}),
    ],
)
def test_optimizers_name_shows_options_and_defaults(hofit: Hofit, name: str, options: dict[str, str]) -> None:
    outcome = hofit("optimizers", name)
    assert outcome.code == 0
    for option, default in options.items():
        assert default in next(line for line in outcome.out.splitlines() if line.startswith(option))


def test_an_unknown_optimizer_is_refused_with_near_misses(hofit: Hofit) -> None:
    outcome = hofit("optimizers", "newtn")
    assert (outcome.code, outcome.out) == (2, "")
    assert '"newton"' in outcome.err
