"""A replay is the evaluation, to the last bit, at other inputs; what cannot be replayed says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hofit.capture.replay import MANY, ByBoth, Replay, by_python, by_script
from hofit.capture.tape import NotCaptured, Recorder, Tape

CONSTANT = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)
OUTSIDE = torch.zeros(6, dtype=torch.float64)


def rows_of_zeros_filled(x: Tensor) -> Tensor:
    z = torch.zeros(6, dtype=x.dtype)
    z[2] = x[0]
    z[3:5] = x[1:3] * 2
    view = z.view(2, 3)
    z[0] += x[1]
    return (view * CONSTANT.view(2, 3)).sum().exp()


def written_by_index(x: Tensor) -> Tensor:
    z = CONSTANT.clone()
    z[torch.tensor([1, 2])] = x[:2]
    return (z**2).sum()


def in_place(x: Tensor) -> Tensor:
    y = x * 2
    y.add_(1)
    y *= x
    return y.sum()


def without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        positive = x > 0
    return torch.where(positive, x, x**2).sum()


def indexed_and_joined(x: Tensor) -> Tensor:
    read = (x[torch.tensor([0, 0, 1, 2])] * torch.arange(4.0, dtype=x.dtype)).sum()
    return read + x.unbind()[3].exp() + torch.cat([x, CONSTANT]).logsumexp(0) + torch.stack([x[0], x[1]]).sum()


def linear_algebra(x: Tensor) -> Tensor:
    square = x.outer(x) + 3 * torch.eye(6, dtype=x.dtype)
    trace: Tensor = torch.linalg.cholesky(square).diagonal().log().sum()
    return trace + torch.einsum("i,i->", x, CONSTANT)


def largest(x: Tensor) -> Tensor:
    return x.topk(2)[0].sum() + x.max() + x.sort()[0][0] + torch.softmax(x, 0)[1].log()


def detached(x: Tensor) -> Tensor:
    return (x * x.detach().exp()).sum() + (x.data * x).sum()


def of_nothing(x: Tensor) -> Tensor:
    return CONSTANT.sum() + 0 * x.detach().sum().new_zeros(())


CAPTURED = [
    rows_of_zeros_filled,
    written_by_index,
    in_place,
    without_gradient,
    indexed_and_joined,
    linear_algebra,
    largest,
    detached,
    of_nothing,
]


def evaluated(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    loss = function(x)
    return [loss.detach(), *torch.autograd.grad(loss, x)] if loss.requires_grad else [loss]


def taped(function: Callable[[Tensor], Tensor], x: Tensor) -> Tape:
    recorder = Recorder([x])
    with recorder:
        found = evaluated(function, x)
    return recorder.finish(found)


def somewhere(seed: int) -> Tensor:
    return torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("way", [lambda tape, x: by_python(tape), lambda tape, x: by_script(tape, [x])])
@pytest.mark.parametrize("function", CAPTURED, ids=lambda f: f.__name__)
def test_loss_and_gradient_are_the_same_bits_elsewhere(
    function: Callable[[Tensor], Tensor], way: Callable[[Tape, Tensor], Replay]
) -> None:
    x = somewhere(0)
    replay = way(taped(function, x), x)
    for seed in (1, 2):
        there = somewhere(seed)
        found, again = evaluated(function, there), replay([there.detach()])
        assert len(found) == len(again) and all(map(torch.equal, found, again))


def test_products_of_several_vectors_at_once_are_the_same_bits() -> None:
    def products(x: Tensor, vectors: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(linear_algebra(x) + largest(x), x, create_graph=True)
        return torch.vmap(lambda v: torch.autograd.grad(slope, x, v, retain_graph=True)[0])(vectors)

    x, vectors = somewhere(0), torch.eye(6, dtype=torch.float64)
    recorder = Recorder([x, vectors])
    with recorder:
        found = products(x, vectors)
    replay = by_script(recorder.finish([found]), [x, vectors])
    there, others = somewhere(1), torch.stack([somewhere(k).detach() for k in range(6)])
    assert torch.equal(replay([there.detach(), others])[0], products(there, others))


def test_what_does_not_depend_on_the_inputs_is_computed_once_and_what_nothing_reads_never() -> None:
    def wasteful(x: Tensor) -> Tensor:
        (x.exp() * 3).sum()
        return (x * CONSTANT.exp().log1p()).sum()

    tape = taped(wasteful, somewhere(0))
    assert [str(step.function) for step in tape.steps] == ["aten.mul.Tensor", "aten.sum.default"]
    assert isinstance(tape.outputs[1], Tensor)  # the gradient is a constant


def outlives(x: Tensor) -> Tensor:
    OUTSIDE[0] += 1
    return (x * OUTSIDE[0]).sum()


def keeps_the_input(x: Tensor) -> Tensor:
    OUTSIDE.copy_(x.detach())
    return (x * OUTSIDE).sum()


def writes_to_the_input(x: Tensor) -> Tensor:
    x.data.mul_(1.0)
    return (x * CONSTANT).sum()


def branches(x: Tensor) -> Tensor:
    return x.sum() if x[0] > 0 else (x**2).sum()


def selects(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def draws(x: Tensor) -> Tensor:
    return (x * torch.randn(6, dtype=x.dtype)).sum()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (outlives, "outlives"),
        (keeps_the_input, "outlives"),
        (writes_to_the_input, "writes into its parameters"),
        (branches, "depends on the values"),
        (selects, "depends on the values"),
        (draws, "random"),
    ],
)
def test_what_cannot_be_replayed_says_why_and_is_computed_all_the_same(
    function: Callable[[Tensor], Tensor], reason: str
) -> None:
    x = somewhere(0)
    recorder = Recorder([x])
    torch.manual_seed(0)
    with recorder:
        found = evaluated(function, x)
    with pytest.raises(NotCaptured, match=reason):
        recorder.finish(found)
    if function is not outlives:
        torch.manual_seed(0)
        assert all(map(torch.equal, found, evaluated(function, x)))


def test_a_failing_factorisation_fails_when_replayed_too() -> None:
    def factorised(x: Tensor) -> Tensor:
        found: Tensor = torch.linalg.cholesky(torch.diag(x)).diagonal().log().sum()
        return found

    x = torch.arange(1.0, 7.0, dtype=torch.float64).requires_grad_()
    replay = by_python(taped(factorised, x))
    with pytest.raises(RuntimeError, match="positive"):
        replay([-x.detach()])


def test_many_calls_are_the_same_bits_before_and_after_the_interpreter_takes_over() -> None:
    replay, x = ByBoth(taped(linear_algebra, somewhere(0))), somewhere(1)
    by_call = [replay([x.detach()]) for _ in range(MANY + 2)]
    assert all(torch.equal(one, other) for found in by_call for one, other in zip(found, by_call[0], strict=True))


def test_an_interpreter_that_gives_other_bits_does_not_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(tape: Tape, inputs: Sequence[Tensor]) -> Replay:
        exact = by_script(tape, inputs)
        return lambda inputs: tuple(value + 1e-9 for value in exact(inputs))

    monkeypatch.setattr("hofit.capture.replay.by_script", other)
    replay, x = ByBoth(taped(linear_algebra, somewhere(0))), somewhere(1)
    by_call = [replay([x.detach()]) for _ in range(MANY + 2)]
    assert all(map(torch.equal, by_call[0], by_call[-1]))
