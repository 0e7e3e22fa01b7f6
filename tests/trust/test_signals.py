"""Signals at any time: a fit ends within an iteration or two seconds, resumable; or keeps where it is and goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trust import mutants, toy
from tests.trust.server import Ended, Server, Started
from tests.trust.survivors import saved, shown, trouble
from tests.written import fit_json

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LIMIT = 2.0
"""Seconds from a signal to the end."""

LONG = toy.CONFIG.replace("max_iterations: 12", "max_iterations: 400")


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = toy.lay_out(tmp_path_factory.mktemp("whole"))
    assert server.run(folder, *toy.FIT).code == 3
    return toy.outcome(folder / "run")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def send(begun: Started, *numbers: int) -> None:
    for number in numbers:
        os.kill(begun.pid, number)


def wrong_end(server: Server, folder: Path, ended: Ended, numbers: tuple[int, ...], whole: Any) -> str | None:
    """What is wrong with how a fit took signals."""
    if "Traceback" in ended.text:
        return f"a traceback: {ended}"
    fit = folder / "run" / "fit.json"
    if ended.code not in (3, *(CODES[one] for one in numbers), *(-one for one in numbers)):  # type: ignore[index]
        return f"left with {ended}"
    if not (folder / "run").exists():
        return None
    if ended.code > 3 and fit.exists():
        written = fit_json(folder / "run")
        if (written["status"], written["exit_code"]) != ("interrupted", ended.code):
            return f"says {written['status']}, {written['exit_code']}, and left with {ended.code}"
        if saved(folder / "run")[0] != written["iterations"]:
            return "the last iteration was not kept"
    return trouble(server, folder, whole)


@pytest.mark.parametrize("pause", ["model", "save"])
def test_at_random_times(server: Server, whole: Any, tmp_path: Path, full: bool, pause: str) -> None:
    """Once and twice; a save is made to take long, so that signals come in the middle of it."""
    chooser = random.Random(3)
    found = {}
    for case in range(100 if full else 3):
        numbers = tuple(chooser.choice(list(CODES)) for _ in range(chooser.choice([1, 1, 2])))
        folder = toy.lay_out(tmp_path / str(case))
        slow = [["tests.trust.slow:saves", 0.02]] if pause == "save" else []
        begun = server.start(folder, *toy.FIT, setups=slow)
        time.sleep(chooser.uniform(0.0, 0.3 if slow else 0.15))
        send(begun, *numbers)
        wrong = wrong_end(server, folder, begun.wait(), numbers, whole)
        if wrong:
            found[case, numbers] = wrong
    assert found == {}


@pytest.mark.parametrize("number", CODES)
def test_it_ends_with_the_signal_s_own_code_and_keeps_the_last_iteration(
    server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    folder = toy.lay_out(tmp_path, config=LONG)
    begun = server.start(folder, *toy.FIT)
    until(lambda: shown(folder / "run") > 0)
    send(begun, number)
    ended = begun.wait()
    assert ended.code == CODES[number], ended
    assert saved(folder / "run")[0] == fit_json(folder / "run")["iterations"] < 400


@pytest.mark.parametrize("where", ["verdict", "errors", "start"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_takes_long_is_left_at_once(
    server: Server, whole: Any, tmp_path: Path, full: bool, where: str, number: signal.Signals
) -> None:
    if not full and (number == signal.SIGINT) == (where == "errors"):
        pytest.skip("the other signal: with --trust-full")
    folder = toy.lay_out(tmp_path)
    ended, seconds = ended_in_the_middle(server, folder, where, number)
    assert seconds < LIMIT
    if where == "start":
        assert ended.code in (-number, CODES[number]) and not (folder / "run").exists()
    else:
        assert ended.code == CODES[number], ended
        assert wrong_end(server, folder, ended, (number,), whole) is None


def ended_in_the_middle(
    server: Server, folder: Path, where: str, number: int, *setups: list[Any]
) -> tuple[Ended, float]:
    """A signal comes while the verdict, the standard errors or the start take five seconds: the end, and when."""
    begun = server.start(folder, *toy.FIT, setups=[[f"tests.trust.slow:{where}", str(folder / "reached")], *setups])
    until(lambda: (folder / "reached").exists())
    before = time.monotonic()
    send(begun, number)
    return begun.wait(), time.monotonic() - before


def test_a_checkpoint_is_written_when_asked_and_the_fit_goes_on(server: Server, tmp_path: Path) -> None:
    config = LONG.replace("every: 4", "seconds: 1000").replace("400", "60")
    folder, alone = toy.lay_out(tmp_path / "asked", config=config), toy.lay_out(tmp_path / "alone", config=config)
    assert kept_when_asked(server, folder)
    assert server.run(alone, *toy.FIT).code == 3
    assert toy.outcome(folder / "run") == toy.outcome(alone / "run")


def kept_when_asked(server: Server, folder: Path, *setups: list[Any]) -> bool:
    """Whether a checkpoint came before the end."""
    begun = server.start(folder, *toy.FIT, setups=[["tests.trust.slow:iterations", 0.01], *setups])
    until(lambda: shown(folder / "run") > 0)
    send(begun, signal.SIGUSR1)
    early = False
    while not (folder / "run" / "fit.json").exists():
        early = early or saved(folder / "run")[0] not in (None, 60)
        time.sleep(0.005)
    assert begun.wait().code == 3
    return early


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_terminal_is_left_as_it_was(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    folder = toy.lay_out(tmp_path, config=LONG)
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    slow = ["tests.trust.slow:iterations", 0.01]
    begun = server.start(folder, *toy.FIT, setups=[["tests.trust.slow:on_terminal", os.ttyname(theirs)], slow])
    until(lambda: shown(folder / "run") > 0)
    send(begun, number)
    begun.wait()
    shown_there = os.read(ours, 1 << 20)
    assert b"iteration" in shown_there and termios.tcgetattr(theirs) == before
    assert not re.search(rb"\x1b\[\?(25l|1049h|47h)", shown_there)  # a hidden cursor, another screen
    styles = re.findall(rb"\x1b\[([0-9;]*)m", shown_there)
    assert not styles or styles[-1] == b"0"
    os.close(ours)
    os.close(theirs)


def test_a_mutant_is_found(server: Server, whole: Any, tmp_path: Path) -> None:
    folder = toy.lay_out(tmp_path / "late")
    late = mutants.setup("a verdict is waited for")
    assert ended_in_the_middle(server, folder, "verdict", signal.SIGTERM, late)[1] > LIMIT
    deaf = toy.lay_out(tmp_path / "deaf", config=LONG.replace("every: 4", "seconds: 1000").replace("400", "60"))
    assert not kept_when_asked(server, deaf, mutants.setup("nobody asks for a checkpoint"))
    folder = toy.lay_out(tmp_path / "code")
    begun = server.start(folder, *toy.FIT, setups=[["tests.trust.slow:iterations", 0.02], mutants.setup("no handlers")])
    until(lambda: shown(folder / "run") > 0)
    send(begun, signal.SIGTERM)
    assert begun.wait().code != CODES[signal.SIGTERM]
