"""From a config to everything a fit needs: model, data, objective, optimizer; every mistake reported at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch

from ..codec import encode
from ..config.load import validate
from ..config.mistakes import Mistakes
from ..config.schema import Config
from ..config.source import Source
from ..errors import ConfigError, ModelError
from ..export.arviz import Labels
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock, Loop, LoopEnd, Observer
from ..fitting.state import LoopState
from ..model.arguments import check_signature
from ..model.enumeration import EnumerationError
from ..model.program import Program
from ..model.randomness import set_seed
from ..objective.base import Objective
from ..objective.build import ObjectiveRefused, objective_of_piece, program_of
from ..optim.mixed import MixedMultiOptimizer
from ..optim.registry import build, registry
from ..patterns import assign, speaking_pattern
from ..point import Params
from ..sharding.gathered import Gathered
from ..uncertainty.gaussian import Gaussian
from . import tensorboard
from .data import Share, find_model, load_data
from .environment import device_mistake, environment, threads_for
from .labels import plate_labels
from .matching import (
    INTEGRATE,
    check_discrete,
    check_ownership,
    constrained,
    integrated,
    local_names,
    match,
    optimizer_specs,
    refuse_changing_draws,
    refuse_subsampling,
)
from .meant import check_observed, check_tolerance
from .provenance import Provenance, provenance_of


@dataclass
class Session:
    """A model with its data and its optimizers, ready for the first step. Use inside ``environment`` and its scope."""

    config: Config
    program: Program
    objective: Objective
    optimizer: MixedMultiOptimizer
    owners: dict[str, str]
    start: Params
    given: frozenset[str]
    """Names whose start is the config's own."""
    warnings: list[str]
    """What is to be said of the data."""
    began: float
    """When the model was first traced, by ``time.perf_counter``."""
    find_provenance: Callable[[], Provenance]
    arguments_of: Callable[[Mapping[str, Any]], dict[str, Any]]
    """The model's arguments, of other arguments given from Python."""
    labels: Callable[[], Labels]
    """What the rows of plates are called."""
    make: Callable[[], tuple[Objective, MixedMultiOptimizer]]
    """Objective and optimizers as they are before a first step."""
    local: list[str]
    """What stands in the rows of a plate that is shared out among pieces of the data."""
    gather: Callable[[LoopEnd, Gaussian | None], Gathered] | None = None
    """What all pieces of the data say of an end, where it is in pieces."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """How the fit from each start ended, where there are several."""

    @cached_property
    def provenance(self) -> Provenance:
        """What a checkpoint belongs to; digests of large data take as long as some iterations, so only when asked."""
        return self.find_provenance()

    def begin_anew(self, start: Params) -> None:
        """Put everything to where it stands before a first step, from another start: of every leaf, unconstrained."""
        self.objective.leaves.write(start)
        self.objective, self.optimizer = self.make()
        self.objective.take_start_loss()  # it was that of another start
        self.start = self.objective.start()
        set_seed(self.config.seed)

    def go_back(self, loop: Loop) -> None:
        """Stand where a loop of this session stands, whatever has begun since."""
        assert isinstance(loop.optimizer, MixedMultiOptimizer)
        self.objective, self.optimizer = loop.objective, loop.optimizer
        self.objective.leaves.invalidate()

    def loop(self, observers: Iterable[Observer], interruption: Interruption, clock: Clock, state: LoopState) -> Loop:
        """The loop of this fit, from a state of its counters."""
        return Loop(self.objective, self.optimizer, self.config.stop, list(observers), interruption, clock, state)


@contextmanager
def again(config: Config, program: Program, arguments: Mapping[str, Any]) -> Iterator[Program]:
    """The program of a fit that has ended, in the surroundings that it was fitted in."""
    with environment(config), program.scope(), program.arguments_replaced(arguments):
        yield program


@dataclass
class Request:
    """What is to be fitted: a model (callable or reference), a config, and arguments given from Python."""

    source: Source
    model: Callable[..., Any] | str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def parse(request: Request) -> tuple[Config, Mistakes]:
    """The config, or what can be saved of it, and its mistakes.

    Raises: ConfigError when nothing can be saved.
    """
    config, found = validate(request.source)
    if config is None:
        raise ConfigError(found)
    mistakes = Mistakes(request.source, found)
    wrong_device = device_mistake(config.device)
    if wrong_device:
        mistakes.add(("device",), wrong_device)
        config = config.model_copy(update={"device": "cpu"})
    if "tensorboard" in config.metrics and not tensorboard.is_available():
        mistakes.add(("metrics",), tensorboard.HINT)
    return config, mistakes


class Builder:
    """Loads, traces and matches, gathering mistakes as long as it makes sense to go on."""

    def __init__(self, request: Request, config: Config, mistakes: Mistakes, share: Share | None = None) -> None:
        """``share`` says which piece of the data is built, where that is not all."""
        self.request, self.config, self.mistakes, self.share = request, config, mistakes, share
        self.reference = request.model if request.model is not None else config.model
        with mistakes.stage():
            self.model = find_model(self.reference)
            known = registry(self.model.optimizers)
        self.specs = optimizer_specs(config, known, mistakes)
        with mistakes.stage():
            self.data = load_data(config, self.model, request.arguments, mistakes, share)
        wrong = check_signature(self.model.model, self.model.name, self.data.arguments)
        if wrong:
            raise mistakes.error(("data",), *wrong)
        try:
            with mistakes.stage():
                self.program = program_of(config.objective, self.model, self.data.arguments, config.seed)
        except ObjectiveRefused as refused:
            raise mistakes.error(("objective",), *refused.mistakes) from refused

    def session(self) -> Session:
        config, program, mistakes = self.config, self.program, self.mistakes
        began = time.perf_counter()
        set_seed(config.seed)
        program.seed_of_each = None if self.share is None else config.seed
        with mistakes.stage():
            try:
                program.discover(self._strategy, config.init.jitter)
            except ModelError as error:
                raise self.data.hint(error) from error
            names = list(program.sites)
            if not names:
                raise ModelError(
                    "the model has no parameter and no latent: there is nothing to fit; name what is unknown by "
                    'pyro.param("name", start), or by pyro.sample("name", prior) without obs='
                )
            unobserved = check_observed(program, self.model.model, self.data.arguments)
        check_discrete(config, program, mistakes)
        fixed = match(("fixed",), config.fixed, names, program, mistakes)
        values = match(("init", "values"), config.init.values, names, program, mistakes)
        starts = constrained(("init", "values"), config.init.values, values, program, mistakes)
        valued = {name: pattern for name, pattern in fixed.items() if config.fixed[pattern] is not None}
        constrained(("fixed",), config.fixed, valued, program, mistakes)
        methods = integrated(config, program, names, fixed, mistakes)
        free = [name for name in names if name not in fixed and name not in methods]
        ownership = assign([entry.patterns for entry in config.optimizers], free)
        if methods and not free:
            mistakes.add(INTEGRATE, "everything is integrated or fixed: there is nothing left to fit")
        else:
            check_ownership(config, self.specs, program, free, ownership, mistakes)
        if not free and not mistakes:
            mistakes.add(("fixed",), "everything is fixed: there is nothing left to fit")
        if mistakes:
            raise mistakes.error()
        if starts:  # with the others drawn given these
            set_seed(config.seed)
            program.discover(self._strategy, config.init.jitter, starts)
        program.hold({name: config.fixed[pattern] for name, pattern in fixed.items()})
        self._rehearse()

        local = [] if self.share is None else local_names(self.share, config, program, methods, mistakes)
        moved = [[name for name in owned if name not in local] for owned in ownership.owners]

        def make() -> tuple[Objective, MixedMultiOptimizer]:
            optimizer = self._optimizer(moved, bool(methods) or self.share is not None)
            objective = objective_of_piece(config.objective, program, methods, local)
            objective.set_capture(config.capture)
            return objective, optimizer

        objective, optimizer = make()
        refuse_subsampling(program, optimizer, bool(methods) or self.share is not None)
        refuse_changing_draws(objective, optimizer, mistakes)
        threads = threads_for(config.threads, self.data.arguments, objective.start())
        torch.set_num_threads(threads)
        labels = {n: e.optimizer for e, owned in zip(config.optimizers, ownership.owners, strict=True) for n in owned}
        given = self.request.arguments
        data = self.data if self.share is None else replace(self.data, arguments={})  # each piece has others
        belongs_to = (config, self.reference, self.model, data, given, threads, program.sites)
        provenance = partial(provenance_of, *belongs_to)
        start, warnings = objective.start(), [*self.data.warnings, *unobserved, *check_tolerance(config)]
        return Session(
            config,
            program,
            objective,
            optimizer,
            labels,
            start,
            frozenset(values),
            warnings,
            began,
            provenance,
            lambda given: load_data(config, self.model, given, mistakes).arguments,
            partial(plate_labels, program.sites, config.data.columns, self.data.levels),
            make,
            local,
        )

    @property
    def _strategy(self) -> Literal["median", "sample", "zero", "uniform"]:
        """Of the starts of latents; where a piece is built for a moment, its own start where it costs least."""
        is_for_a_moment = self.share is not None and not self.share.is_first_look
        return "zero" if is_for_a_moment else self.config.init.strategy

    def _rehearse(self) -> None:
        try:
            self.program.rehearse()
        except EnumerationError as error:
            pattern = speaking_pattern(self.config.objective.integrate, error.site)
            assert pattern is not None
            raise self.mistakes.error((*INTEGRATE, pattern), str(error)) from error

    def _optimizer(self, owners: list[list[str]], integral: bool) -> MixedMultiOptimizer:
        parts = []
        for entry, spec, owned in zip(self.config.optimizers, self.specs, owners, strict=True):
            assert spec is not None
            parts.append((owned, build(spec, entry.options, entry.schedule)))
        mix = MixedMultiOptimizer(parts, self.config.order)
        mix.bind([name for owned in owners for name in owned])
        for entry, (_, part) in zip(self.config.optimizers, mix.parts, strict=True):
            at = (*entry.key, "optimizer")
            if integral and part.reads_model:
                why = "a marginal is an integral" if self.share is None else "each piece of the data has a part of it"
                text = f"{entry.optimizer} reads the model itself, and {why}: take trust_region"
                raise self.mistakes.error(at, text)
            try:
                encode(part.state_dict(), {}, entry.optimizer)
            except TypeError as error:
                raise self.mistakes.error(
                    at, f"{error}: give the optimizer a state_dict and a load_state_dict"
                ) from error
        return mix
