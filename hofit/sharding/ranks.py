"""Pieces in processes of their own, under torchrun: one leads, and asks; the others answer.

Every process has its piece from the start to the end. What goes between them is sent from process to process, so that
it is known which one does not answer. The engine is torch.distributed's, by gloo; see
https://docs.pytorch.org/docs/stable/distributed.html.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
from torch import Tensor, distributed

from ..errors import HofitError, ModelError, PieceLost, StepImpossible
from .message import Message, pack, unpack
from .piece import Piece
from .team import Each

OPEN, END = "open", "end"
"""What the others are told beside questions: which fit it is, and with which code to leave."""

FAULTS: dict[str, type[Exception]] = {"ModelError": ModelError, "StepImpossible": StepImpossible}
"""What a piece may raise and the leader raises again."""

CONNECT = timedelta(minutes=10)
"""Within which all processes must have come together."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int
    size: int


def world() -> World:
    """As torchrun says it in the environment; one process alone without."""
    return World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


class Processes:
    """The processes of one fit, once they have come together."""

    def __init__(self) -> None:
        self.world = world()
        self.communicated = 0
        self.timeout = 1800.0
        """Seconds that one is waited for."""
        self._lost = False
        self._owed = [0] * self.world.size
        """Answers that are still to come, by process."""

    def connect(self) -> None:
        """Come together. Raises: PieceLost where some do not come."""
        if distributed.is_initialized():
            return
        try:
            distributed.init_process_group("gloo", timeout=CONNECT)
        except (RuntimeError, ValueError) as error:
            raise PieceLost(f"the {self.world.size} processes did not come together: {_first_line(error)}") from error

    def ask(self, other: int, what: str, content: Message) -> None:
        """Send a question, whose answer is to be received."""
        self._owed[other] += 1
        self.send({"what": what, "content": content}, other)

    def send(self, message: Message, other: int) -> None:
        data = pack(message)
        self._exchange(distributed.isend, torch.tensor([len(data)]), other)
        self._exchange(distributed.isend, torch.frombuffer(bytearray(data), dtype=torch.uint8), other)
        self.communicated += len(data)

    def receive(self, other: int) -> Message:
        length = torch.zeros(1, dtype=torch.int64)
        self._exchange(distributed.irecv, length, other)
        data = torch.empty(int(length), dtype=torch.uint8)
        self._exchange(distributed.irecv, data, other)
        self.communicated += len(data)
        self._owed[other] -= 1
        return unpack(data.numpy().tobytes())

    def _exchange(self, way: Callable[[Tensor, int], distributed.Work | None], data: Tensor, other: int) -> None:
        try:
            under_way = way(data, other)
            assert under_way is not None
            under_way.wait(timedelta(seconds=self.timeout))
        except RuntimeError as error:
            self._lost = True
            raise PieceLost(
                f"process {other} of {self.world.size} does not answer any more ({_first_line(error)}): what was "
                "written before stands, and `hofit resume` goes on from the newest checkpoint"
            ) from error

    def end(self, code: int) -> None:
        """Let the others leave with a code, too."""
        with suppress(PieceLost):
            self.connect()
            for other in range(1, 1 if self._lost else self.world.size):  # else torchrun ends them
                while self._owed[other] > 0:
                    self.receive(other)
                self.send({"what": END, "content": {"code": code}}, other)
        self.close()

    def close(self) -> None:
        with suppress(RuntimeError):
            if distributed.is_initialized():
                distributed.destroy_process_group()


@dataclass
class Ranks:
    """The team of a world of processes, as the first of them sees it."""

    own: Piece
    processes: Processes
    comes_back: bool = False

    @property
    def size(self) -> int:
        return self.processes.world.size

    @property
    def communicated(self) -> int:
        return self.processes.communicated

    def ask(self, what: str, content: Message, each: Each | None = None) -> list[Message]:
        signals: list[int] = []
        with _signals_held():
            for other in range(1, self.size):
                self.processes.ask(other, what, {**content, **_more(each, other)})
            own = _answered(self.own, what, {**content, **_more(each, 0)})
            answers = [own, *(self.processes.receive(other) for other in range(1, self.size))]
            signals = [answer["signal"] for answer in answers if answer.get("signal")]
        if signals:  # one process was told to end, and so all are
            signal.raise_signal(signals[0])
        for number, answer in enumerate(answers):
            _raise_fault(answer, number, self.size)
        return [answer["answer"] for answer in answers]

    def count_once(self, names: list[str]) -> None:
        self.ask("count_elsewhere", {}, lambda piece: {"names": names if piece else []})

    def forget(self, numbers: list[int]) -> None:
        with _signals_held():
            for other in range(1, self.size):
                self.processes.send({"what": "forget", "content": {"numbers": numbers}}, other)
            self.own.forget(numbers)


def hear_of_others(processes: Processes) -> None:
    """Hear whether all have built their pieces. Raises: ModelError."""
    for other in range(1, processes.world.size):
        _raise_fault(processes.receive(other), other, processes.world.size)


def serve(opened: Callable[[Message], Iterator[Piece]]) -> int:
    """Answer the process that leads until it says with which code to leave. ``opened`` builds the piece of a fit."""
    processes, received = Processes(), list[int]()
    open_piece = contextmanager(opened)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.setitimer(signal.ITIMER_REAL, processes.timeout)  # which ends what answers no more

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    try:
        processes.connect()
        message = processes.receive(0)
        while message["what"] == OPEN:
            try:
                processes.timeout = message["content"]["timeout"]
                with open_piece(message["content"]) as piece:
                    processes.send({"answer": {}}, 0)
                    message = _serve_one(processes, piece, received)
            except PieceLost:
                raise
            except (Exception, SystemExit) as error:
                processes.send(_fault(error), 0)
                message = processes.receive(0)
        return int(message["content"]["code"])
    except PieceLost as lost:
        print(f"hofit: {lost}", file=sys.stderr)
        return lost.exit_code
    finally:
        processes.close()


def _serve_one(processes: Processes, piece: Piece, received: list[int]) -> Message:
    """Answer of one piece; the message that is no question of it any more."""
    while True:
        message = processes.receive(0)
        if message["what"] in (OPEN, END):
            return message
        if message["what"] == "forget":
            piece.forget(message["content"]["numbers"])
            continue
        answer = _answered(piece, message["what"], message["content"])
        processes.send({**answer, "signal": received.pop() if received else 0}, 0)


def _answered(piece: Piece, what: str, content: Message) -> Message:
    try:
        return {"answer": piece.answer(what, content)}
    except (Exception, SystemExit) as error:
        return _fault(error)


def _fault(error: BaseException) -> Message:
    known = isinstance(error, (HofitError, StepImpossible))
    text = str(error) if known else "".join(traceback.format_exception_only(error)).strip()
    return {"fault": text, "kind": type(error).__name__}


def _raise_fault(answer: Message, process: int, of: int) -> None:
    """What a process has told of instead of an answer. Raises: ModelError, StepImpossible."""
    if "fault" in answer:
        raise FAULTS.get(answer["kind"], ModelError)(f"process {process} of {of}: {answer['fault']}")


def _more(each: Each | None, piece: int) -> Message:
    return {} if each is None else each(piece)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Inside, no signal comes between a question and its answers, for then the next would be given the wrong ones."""
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
