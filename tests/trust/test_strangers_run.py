"""A run directory that a stranger sent is data: no command runs what is in it, or writes outside of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from hofit.run import resume
from tests.command_line import Hofit
from tests.trust.configs import toy_folder
from tests.trust.forked import Outcome, Trial, command, tried
from tests.trust.strangers import Audit, Payload, payloads

SECONDS, MEGABYTES = 5.0, 300.0
OBEYED = ("\x1b", "\x07", "\x9b", "\x08")
COMMANDS = {"report": (), "resume": (), "diagnose": ("--draws", "100"), "export": ("--to", "draws.csv", "--overwrite")}
EVERY = 30
"""Of the payloads, one in so many is in the fast slice; those that are forged are all there."""


@pytest.fixture
def folder(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy folder with a good run in it; each command has been run once, so that all it imports is imported."""
    monkeypatch.chdir(tmp_path)
    toy_folder(tmp_path)
    text = (tmp_path / "good.yaml").read_text().replace("adam\n    lr: 0.05", "newton").replace(": 2}", ": 50}")
    (tmp_path / "good.yaml").write_text(text)
    assert hofit("fit", "toy.py", "-c", "good.yaml", "--run-dir", "run").code == 0
    for verb, options in COMMANDS.items():
        assert hofit(verb, "run", *options).code == 0
    return tmp_path


def opened(folder: Path, payload: Payload, verb: str) -> Trial:
    """A command on a copy of the good run with the payload in it, under audit."""

    def trial() -> int:
        run, outside = folder / "strange" / "run", folder / "outside"
        for path in (run.parent, outside):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder / "run", run)
        outside.mkdir()
        (outside / "victim").write_text("as it was")
        for name in [name for name in sys.modules if name.startswith(("evil", "antigravity"))]:
            del sys.modules[name]
        payload(run, outside)
        audit = Audit(run, outside)
        code = command(verb, run, *COMMANDS[verb])()
        harm = list(audit.found)
        expected = {"victim", "evil.py"}
        harm += [f"made {name}" for name in os.listdir(outside) if name not in expected]
        if (outside / "victim").read_text() != "as it was":
            harm.append("changed what was outside")
        if harm:
            print(f"HARM: {harm}")
        return code

    return trial


def faults(outcomes: dict[str, Outcome]) -> list[str]:
    found = []
    for name, outcome in outcomes.items():
        if not outcome.clean or "HARM" in outcome.text:
            found.append(f"{name}: {outcome.code}: {outcome.text[-600:]}")
        elif outcome.seconds > SECONDS or outcome.megabytes > MEGABYTES:
            found.append(f"{name}: {outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB")
        elif any(character in outcome.text for character in OBEYED):
            found.append(f"{name}: a terminal obeys {outcome.text!r}")
    return found


def test_no_command_runs_or_obeys_what_a_stranger_sent(folder: Path, full: bool) -> None:
    everything = payloads()
    assert len(everything) >= 50
    forged = ("model", "digest", "written", "obeyed")
    chosen = {
        name: payload
        for number, (name, payload) in enumerate(everything.items())
        if full or number % EVERY == 0 or any(word in name for word in forged)
    }
    trials = {f"{verb}: {name}": opened(folder, payload, verb) for name, payload in chosen.items() for verb in COMMANDS}
    found = faults(tried(trials, folder))
    assert not found, "\n".join(found)


def test_resume_says_which_model_it_runs_before_it_does(folder: Path, hofit: Hofit) -> None:
    shown = hofit("resume", "run").err.splitlines()
    assert shown[0] == f"hofit: the model is {folder / 'toy.py'}:model"


def test_a_reader_that_trusts_its_checkpoint_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_refuse_unknown_model", lambda provenance: None)
    trials = {name: opened(folder, payload, "resume") for name, payload in payloads().items() if "elsewhere" in name}
    assert len(faults(tried(trials, folder))) >= 2
