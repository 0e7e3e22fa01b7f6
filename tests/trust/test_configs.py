"""Whatever a config says, the command ends by itself, in time, in little memory, with a message and no traceback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.command_line import Hofit
from tests.trust.configs import GOOD, by_hand, mutants, toy_folder
from tests.trust.forked import Outcome, Trial, command, tried

SECONDS, HANGS = 1.0, 20.0
"""Of a command, beyond its imports; in the fast slice, which runs on busy machines too, what hangs is found."""
MEGABYTES = 200.0
"""Beyond importing torch and Pyro."""

MUTANTS, FEW = 500, 40
EVERY = 9
"""Of those by hand, one in so many is in the fast slice."""


@pytest.fixture
def folder(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy folder; what the commands import has been imported, so that no trial pays for it."""
    monkeypatch.chdir(tmp_path)
    toy_folder(tmp_path)
    for config in ("good.yaml", "marginal.yaml"):
        assert hofit("check", "toy.py", "-c", config).code == 0
    assert hofit("fit", "toy.py", "-c", "good.yaml", "-q").code in (0, 3)
    return tmp_path


def checked(folder: Path, texts: Mapping[str, str], verb: str = "check") -> dict[str, Outcome]:
    """A command on each text."""
    trials: dict[str, Trial] = {}
    for number, (name, text) in enumerate(texts.items()):
        (folder / f"{number}.yaml").write_bytes(text.encode(errors="surrogatepass"))
        options = ("--run-dir", f"run {number}", "-q") if verb == "fit" else ()
        trials[name] = command(verb, "toy.py", "-c", f"{number}.yaml", *options)
    return tried(trials, folder)


def faults(outcomes: Mapping[str, Outcome], full: bool = False) -> list[str]:
    """What is not as it should be, a line each."""
    most = SECONDS if full else HANGS
    found = []
    for name, outcome in outcomes.items():
        if not outcome.clean:
            found.append(f"{name}: {outcome.code}: {outcome.text[-400:]}")
        elif outcome.seconds > most or outcome.megabytes > MEGABYTES:
            found.append(f"{name}: {outcome.seconds:.2f} s, {outcome.megabytes:.0f} MB")
        elif outcome.code == 2 and not any(file in outcome.text for file in (".yaml", "data.csv", "toy.py")):
            found.append(f"{name}: names no file: {outcome.text[:400]}")
    return found


def test_mutants_of_good_configs(folder: Path, full: bool) -> None:
    outcomes = checked(folder, dict(mutants(MUTANTS if full else FEW)))
    assert faults(outcomes, full) == []
    refused = sum(outcome.code == 2 for outcome in outcomes.values())
    assert 0.5 * len(outcomes) < refused, refused


def test_configs_written_by_hand(folder: Path, full: bool) -> None:
    texts = by_hand()
    assert len(texts) >= 150
    few = {name: text for number, (name, text) in enumerate(texts.items()) if number % EVERY == 0}
    assert faults(checked(folder, texts if full else few), full) == []


def test_what_check_lets_pass_fits_without_a_traceback(folder: Path, full: bool) -> None:
    texts = by_hand() | dict(mutants(MUTANTS // 2 if full else 10, seed=1))
    small = {n: t for i, (n, t) in enumerate(texts.items()) if len(t) < 3000 and (full or i % 12 == 0)}
    assert faults(checked(folder, small, "fit")) == []


def test_paths_that_the_system_does_not_take(folder: Path) -> None:
    long, nul = "x" * 4000, "a\0b"
    trials = {
        f"{name[:9]}: {verb}": command(*arguments)
        for name in (long, nul)
        for verb, arguments in {
            "model": ("check", f"{name}.py", "-c", "good.yaml"),
            "config": ("check", "toy.py", "-c", name),
            "data": ("check", "toy.py", "-c", "good.yaml", "--data", f"{name}.csv"),
            "run directory": ("fit", "toy.py", "-c", "good.yaml", "-q", "--run-dir", name),
            "resume": ("resume", name),
            "report": ("report", name),
            "diagnose": ("diagnose", name),
        }.items()
    }
    trials["a key of many parts"] = command("check", "toy.py", "-c", "good.yaml", "-s", ".".join("a" * 100_000) + "=1")
    trials["a deep value"] = command("check", "toy.py", "-c", "good.yaml", "-s", "seed=" + "[" * 100_000)
    outcomes = tried(trials, folder)
    for name, outcome in outcomes.items():
        assert outcome.clean and outcome.code in (2, 5), f"{name}: {outcome.code}: {outcome.text[-400:]}"
        assert outcome.seconds < HANGS, name
    assert (folder / "good.yaml").read_text() == GOOD
