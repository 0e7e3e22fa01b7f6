"""From a config to everything a fit needs: model, data, objective, optimizer; every mistake reported at once."""

from __future__ import annotations

import inspect
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pyro
import torch

from .. import __version__
from ..config.load import dump, validate
from ..config.schema import Config, OptimizerEntry
from ..config.source import Source
from ..curvature.rows import rows_from_plates
from ..errors import ConfigError, DataError, HofitError, ModelError
from ..model.arguments import call_load_data, check_signature, digest_arguments, digest_callable, merge, to_tensors
from ..model.columns import columns_to_arguments
from ..model.elbo import AUTOGUIDES, ElboProgram
from ..model.enumeration import EnumerationError, no_leaf
from ..model.module import ModelSource, load_model, sha256_of_file, split_reference
from ..model.program import Program
from ..model.randomness import random_state_kept, set_seed
from ..model.table import read_table
from ..objective.base import Objective
from ..objective.density import DensityObjective
from ..objective.elbo import ElboObjective
from ..objective.leaves import Leaves
from ..objective.marginal import Approximation, MarginalObjective, laplace
from ..objective.quadrature import DEFAULT_NODES, WIDEST, Quadrature
from ..optim.base import OptimizerSpec
from ..optim.mixed import MixedMultiOptimizer
from ..optim.newton import unmatched_radii
from ..optim.registry import build, mistakes_in, registry
from ..patterns import assign, matches, near_misses, speaking_pattern
from ..point import Params
from .checkpoint import Provenance
from .codec import encode
from .compiler import compiler_left_out
from .memory import keep_large_temporaries


@dataclass
class Session:
    """A model with its data and its optimizers, ready for the first step. Use inside ``environment`` and its scope."""

    config: Config
    program: Program
    objective: Objective
    optimizer: MixedMultiOptimizer
    owners: dict[str, str]
    start: Params
    began: float
    """When the model was first traced, by ``time.perf_counter``."""
    find_provenance: Callable[[], Provenance]

    @cached_property
    def provenance(self) -> Provenance:
        """What a checkpoint belongs to; digests of large data take as long as some iterations, so only when asked."""
        return self.find_provenance()


@dataclass
class Request:
    """What is to be fitted: a model (callable or reference), a config, and arguments given from Python."""

    source: Source
    model: Callable[..., Any] | str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def environment(config: Config) -> Iterator[None]:
    """The run's dtype, device and seed; a parameter store of its own. All is put back on leaving."""
    keep_large_temporaries()
    dtype, device, threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    flags = (torch.distributions.Distribution._validate_args, pyro.poutine.is_validation_enabled())
    store = pyro.get_param_store().scope()
    with random_state_kept(), store, pyro.validation_enabled(flags[1]), compiler_left_out():
        try:
            torch.set_default_dtype(getattr(torch, config.dtype))
            if torch.device(config.device).type != "cpu":  # a default device slows every call
                torch.set_default_device(config.device)
            set_seed(config.seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(device)
            torch.distributions.Distribution.set_default_validate_args(flags[0])


def parse(request: Request) -> tuple[Config, list[str]]:
    """The config, or what can be saved of it, and its mistakes.

    Raises: ConfigError when nothing can be saved.
    """
    config, mistakes = validate(request.source)
    if config is None:
        raise ConfigError(mistakes)
    wrong_device = _device_mistake(config.device)
    if wrong_device:
        mistakes.append(request.source.mistake(("device",), wrong_device))
        config = config.model_copy(update={"device": "cpu"})
    return config, mistakes


@contextmanager
def prepared(request: Request, config: Config, mistakes: list[str]) -> Iterator[Session]:
    """A session, with the environment it needs around it.

    Raises: ConfigError with every mistake; ModelError or DataError when that is the only thing wrong.
    """
    with environment(config):
        builder = _Builder(request, config, list(mistakes))
        program = builder.program()
        with program.scope():
            yield builder.session(program)


class _Builder:
    """Loads, traces and matches, gathering mistakes as long as it makes sense to go on."""

    def __init__(self, request: Request, config: Config, mistakes: list[str]) -> None:
        self.request, self.config, self.source, self.mistakes = request, config, request.source, mistakes
        self.data_files: dict[str, str] = {}
        self.specs: list[OptimizerSpec | None] = []

    def program(self) -> Program:
        self.model = self._stage(self._load_model)
        self.specs = self._optimizer_specs(self._stage(lambda: registry(self.model.optimizers)))
        self.arguments = self._stage(self._load_arguments)
        wrong = check_signature(self.model.model, self.model.name, self.arguments)
        if wrong:
            raise ConfigError([*self.mistakes, *(self.source.mistake(("data",), text) for text in wrong)])
        if self.config.objective.type == "elbo":
            return self._elbo_program()
        return Program(self.model.model, self.arguments)

    def session(self, program: Program) -> Session:
        config, threads = self.config, torch.get_num_threads()
        program.integration = config.objective.integrate
        began = time.perf_counter()
        set_seed(config.seed)
        self._stage(lambda: program.discover(config.init.strategy, config.init.jitter))
        names = list(program.sites)
        if not names:
            raise self._raise(ModelError("the model has no parameter and no latent: there is nothing to fit"))
        self._check_discrete(program)
        fixed = self._matched("fixed", config.fixed, names)
        values = self._matched("init.values", config.init.values, names)
        starts: dict[str, Any] = {}
        for name, pattern in values.items():
            try:
                starts[name] = program.constrained_like(name, config.init.values[pattern])
            except ValueError as error:
                self._mistake(("init", "values", pattern), f"{name!r}: {error}")
        for name, pattern in fixed.items():
            if config.fixed[pattern] is not None:
                try:
                    program.constrained_like(name, config.fixed[pattern])
                except ValueError as error:
                    self._mistake(("fixed", pattern), f"{name!r}: {error}")
        integrated = self._integrated(program, names, fixed)
        free = [name for name in names if name not in fixed and name not in integrated]
        ownership = assign([entry.patterns for entry in config.optimizers], free)
        if integrated and not free:
            self._mistake(("objective", "integrate"), "everything is integrated or fixed: there is nothing left to fit")
        else:
            self._check_ownership(program, free, names, ownership.owners, ownership.orphans)
        if not free and not self.mistakes:
            self.mistakes.append(self.source.mistake(("fixed",), "everything is fixed: there is nothing left to fit"))
        if self.mistakes:
            raise ConfigError(self.mistakes)
        if starts:  # with the others drawn given these
            set_seed(config.seed)
            self._stage(lambda: program.discover(config.init.strategy, config.init.jitter, starts))
        program.hold({name: config.fixed[pattern] for name, pattern in fixed.items()})
        self._rehearse(program)
        optimizer = self._optimizer(ownership.owners, bool(integrated))
        self._refuse_subsampling(program, optimizer, bool(integrated))
        self._refuse_changing_draws(program, optimizer)
        objective = self._objective(program, integrated)
        torch.set_num_threads(_threads(config.threads, self.arguments, objective.start()))
        labels = {n: e.optimizer for e, owned in zip(config.optimizers, ownership.owners, strict=True) for n in owned}
        found = partial(self._provenance, threads)
        return Session(config, program, objective, optimizer, labels, objective.start(), began, found)

    # the model and its data -------------------------------------------------------------------------------------

    def _load_model(self) -> ModelSource:
        model = self.request.model if self.request.model is not None else self.config.model
        if model is None:
            raise ModelError("no model: name one on the command line, or with the key `model` of the config")
        if isinstance(model, str):
            return load_model(model)
        if isinstance(model, type) or not callable(model):
            raise ModelError(f"a model is a function, a PyroModule instance or a path, not {model!r:.60}")
        return ModelSource(model, getattr(model, "__name__", type(model).__name__))

    def _load_arguments(self) -> dict[str, Any]:
        data = self.config.data
        path = None if data.path is None else Path(data.path)
        parts: list[tuple[str, Mapping[str, Any]]] = []
        load_data = self.model.load_data
        if load_data is not None:
            loaded = call_load_data(load_data, data.options, path)
            parts.append(("load_data", loaded))
        elif data.options:
            raise DataError("there is no load_data in the model's module to take them", ("data", "options"))
        if path is not None and path.is_file():
            self.data_files[str(path)] = sha256_of_file(path)
        if data.columns:
            if path is None:
                raise DataError("data.columns needs data.path", ("data", "columns"))
            arguments, errors = columns_to_arguments(self._read(path), data.columns, data.missing)
            for error in errors[:-1]:
                self._mistake(error.key, str(error))
            if errors:
                raise errors[-1]
            parts.append(("data.columns", arguments))
        elif path is not None and not (load_data and "path" in inspect.signature(load_data).parameters):
            raise DataError("nothing reads it: name data.columns, or let load_data take `path`", ("data", "path"))
        parts.append(("data.arguments", data.arguments))
        parts.append(("Python", self.request.arguments))
        return to_tensors(merge(parts), torch.device(self.config.device))

    def _read(self, path: Path) -> Any:
        try:
            return read_table(path)
        except DataError as error:
            raise DataError(str(error), ("data", "path")) from error

    def _elbo_program(self) -> ElboProgram:
        asked = self.config.objective
        guide = asked.autoguide or self._stage(lambda: self.model.guide)
        if guide is None:
            text = f"elbo needs a guide, and the model's module has none: set autoguide to {', '.join(AUTOGUIDES)}"
            raise ConfigError([*self.mistakes, self.source.mistake(("objective",), text)])
        wrong = [] if isinstance(guide, str) else check_signature(guide, "guide", self.arguments)
        if wrong:
            raise ConfigError([*self.mistakes, *(self.source.mistake(("objective",), text) for text in wrong)])
        seed = self.config.seed if asked.fixed_draws else None
        return ElboProgram(self.model.model, guide, self.arguments, asked.particles or 1, seed)

    def _objective(self, program: Program, integrated: Mapping[str, str]) -> Objective:
        asked = self.config.objective
        if isinstance(program, ElboProgram):
            return ElboObjective(program)
        if not integrated:
            jacobian = program.latents if asked.jacobian else None
            return DensityObjective(program, asked.type, jacobian=jacobian)
        program.integrate(integrated)
        leaves = Leaves(program.leaves)
        approximation: Approximation = laplace
        if "aghq" in integrated.values():
            names = program.latents if asked.jacobian else integrated
            approximation = Quadrature(program, leaves, integrated, asked.nodes or DEFAULT_NODES, names)
        return MarginalObjective(program, list(integrated), bool(asked.jacobian), approximation, leaves)

    # the config against the model -------------------------------------------------------------------------------

    def _optimizer_specs(self, known: Mapping[str, OptimizerSpec]) -> list[OptimizerSpec | None]:
        specs: list[OptimizerSpec | None] = []
        for entry in self.config.optimizers:
            spec = known.get(entry.optimizer)
            specs.append(spec)
            at = self._entry_key(entry)
            if spec is None:
                near = near_misses(entry.optimizer, known)
                self._mistake((*at, "optimizer"), f"no optimizer {entry.optimizer!r}{near}")
                continue
            short = _runs_out(entry.schedule, self.config.stop.max_iterations)
            if short is not None:
                self._mistake((*at, "schedule"), short)
            for key, text in mistakes_in(spec, entry.options, entry.schedule):
                self._mistake((*at, *key.split(".")) if key else at, text)
        return specs

    def _entry_key(self, entry: OptimizerEntry) -> tuple[str | int, ...]:
        return ("optimizers", entry.position)

    def _matched(self, key: str, values: Mapping[str, Any], names: list[str]) -> dict[str, str]:
        """Name → the pattern that speaks for it; a pattern that matches nothing is a mistake."""
        for pattern in values:
            if not any(matches(pattern, name) for name in names):
                text = f"no parameter or latent matches {pattern!r}{near_misses(pattern, names)}"
                self._mistake((*key.split("."), pattern), text)
        found = {name: speaking_pattern(values, name) for name in names}
        return {name: pattern for name, pattern in found.items() if pattern is not None}

    def _integrated(self, program: Program, names: list[str], fixed: Mapping[str, str]) -> dict[str, str]:
        """Latent → the method that integrates it."""
        asked = {p: how for p, how in self.config.objective.integrate.items() if how != "enumerate"}
        found: dict[str, str] = {}
        for pattern in asked:
            key = ("objective", "integrate", pattern)
            matched = [name for name in names if matches(pattern, name)]
            parameters = [name for name in matched if name in program.parameters]
            if parameters:
                self._mistake(key, f"{parameters[0]!r} is a parameter: only latents (sample sites) can be integrated")
            elif not matched and not any(matches(pattern, name) for name in program.discrete):
                observed = [name for name in program.observed if matches(pattern, name)]
                what = f"{observed[0]!r} is observed" if observed else f"no latent matches {pattern!r}"
                self._mistake(key, f"{what}{near_misses(pattern, list(program.latents)) if not observed else ''}")
            for name in matched:
                if name in fixed:
                    self._mistake(key, f"{name!r} is both fixed and integrated")
                width = program.sites[name].row_length
                if asked[pattern] == "aghq" and width > WIDEST:
                    self._mistake(key, f"aghq: a row of {name!r} has {width} numbers, and {WIDEST} are the most")
        spoken: dict[str, str] = {}
        for name in program.latents:
            speaking = speaking_pattern(asked, name)
            if speaking is not None:
                found[name], spoken[name] = asked[speaking], speaking
        self._check_rows(program, found, spoken)
        return found

    def _check_discrete(self, program: Program) -> None:
        """Patterns that say `enumerate`, and discrete latents that a pattern speaks for."""
        integrate, found = self.config.objective.integrate, program.discrete
        for pattern, method in integrate.items():
            if method != "enumerate":
                continue
            at = ("objective", "integrate", pattern)
            others = [name for name in program.sites if speaking_pattern(integrate, name) == pattern]
            for name in others:
                role, constraint = program.sites[name].role, program.sites[name].constraint
                what = "a parameter" if role == "parameter" else f"continuous ({constraint})"
                self._mistake(at, f"{name!r} is {what}: only discrete latents can be enumerated")
            if not others and not any(matches(pattern, name) for name in found):
                seen = [name for name in program.observed if matches(pattern, name)]
                text = f"no discrete latent matches {pattern!r}{near_misses(pattern, found)}"
                self._mistake(at, f"{seen[0]!r} is observed: there is nothing to sum out" if seen else text)
        for name, site in found.items():
            spoken = speaking_pattern(integrate, name)
            if spoken is None:
                self._mistake(("objective", "integrate"), no_leaf(name, site.distribution))
                continue
            at = ("objective", "integrate", spoken)
            if not site.has_finite_support:
                text = "no finite list of values to sum over: take a dist.Categorical over as many as matter"
                self._mistake(at, f"{name!r} ({site.distribution}) has {text}")
            elif integrate[spoken] != "enumerate":
                self._mistake(at, f"{name!r} is discrete ({site.distribution}): give it `enumerate`")

    def _rehearse(self, program: Program) -> None:
        try:
            self._stage(program.rehearse)
        except EnumerationError as error:
            pattern = speaking_pattern(self.config.objective.integrate, error.site)
            assert pattern is not None
            text = self.source.mistake(("objective", "integrate", pattern), str(error))
            raise ConfigError(text) from error

    def _check_rows(self, program: Program, methods: Mapping[str, str], patterns: Mapping[str, str]) -> None:
        """Sites of one plate form its rows together: one method, and for aghq few numbers in all."""
        sites = {name: program.sites[name] for name in methods}
        for group in rows_from_plates(list(methods), sites) if sites else []:
            by_nodes = [name for name in group.names if methods[name] == "aghq"]
            if not by_nodes or group.rows < 2:
                continue
            key, names = ("objective", "integrate", patterns[by_nodes[0]]), " and ".join(map(repr, group.names))
            if len(by_nodes) < len(group.names):
                self._mistake(key, f"{names} form one row: integrate them by one method")
            elif group.length > WIDEST and all(sites[name].row_length <= WIDEST for name in group.names):
                self._mistake(key, f"aghq: a row of {names} has {group.length} numbers, and {WIDEST} are the most")

    def _check_ownership(
        self, program: Program, free: list[str], names: list[str], owners: list[list[str]], orphans: list[str]
    ) -> None:
        salvaged = len(self.config.optimizers) != len(self.source.data.get("optimizers") or [])
        if orphans and not salvaged:
            listed = ", ".join(repr(name) for name in orphans[:12])
            self._mistake(("optimizers",), f"no entry matches {listed}: add one, or `fixed:`")
        for entry, owned, spec in zip(self.config.optimizers, owners, self.specs, strict=True):
            at = self._entry_key(entry)
            for pattern in entry.patterns:
                if not any(matches(pattern, name) for name in names):
                    text = f"no parameter matches {pattern!r}{near_misses(pattern, free)}"
                    self._mistake((*at, "params"), text)
            if not owned and all(any(matches(p, name) for name in names) for p in entry.patterns):
                taken = "taken above, fixed or integrated"
                self._mistake((*at, "params"), f"the entry gets no parameter: all it matches are {taken}")
            for pattern in unmatched_radii(entry.options.get("trust_radius"), owned):
                text = f"no parameter of this entry matches {pattern!r}{near_misses(pattern, owned)}"
                self._mistake((*at, "trust_radius", pattern), text)
            for name in owned if spec is not None else []:
                wrong = spec.fits_shape(program.sites[name].shape) if spec is not None else None
                if wrong:
                    self._mistake((*at, "params"), f"{name!r}: {wrong}")

    def _optimizer(self, owners: list[list[str]], integral: bool) -> MixedMultiOptimizer:
        parts = []
        for entry, spec, owned in zip(self.config.optimizers, self.specs, owners, strict=True):
            assert spec is not None
            parts.append((owned, build(spec, entry.options, entry.schedule)))
        mix = MixedMultiOptimizer(parts, self.config.order)
        mix.bind([name for owned in owners for name in owned])
        for entry, (_, part) in zip(self.config.optimizers, mix.parts, strict=True):
            if integral and part.reads_model:
                text = f"{entry.optimizer} reads the model itself, and a marginal is an integral: take trust_region"
                raise ConfigError(self.source.mistake((*self._entry_key(entry), "optimizer"), text))
            try:
                encode(part.state_dict(), {}, entry.optimizer)
            except TypeError as error:
                text = f"{error}: give the optimizer a state_dict and a load_state_dict"
                raise ConfigError(self.source.mistake((*self._entry_key(entry), "optimizer"), text)) from error
        return mix

    def _refuse_subsampling(self, program: Program, optimizer: MixedMultiOptimizer, integral: bool) -> None:
        plates = ", ".join(repr(name) for name in program.subsampled)
        if program.subsampled and integral:
            raise ModelError(
                f"the plate {plates} is subsampled: a marginal needs the whole plate (leave subsample_size out)"
            )
        if program.subsampled and (optimizer.judges or optimizer.second_order):
            raise ModelError(
                f"the plate {plates} is subsampled, so the loss is an estimate: second-order optimizers need the whole "
                "plate (leave subsample_size out), or every part a first-order one"
            )

    def _refuse_changing_draws(self, program: Program, optimizer: MixedMultiOptimizer) -> None:
        changing = isinstance(program, ElboProgram) and program.fixed_seed is None
        if changing and (optimizer.judges or optimizer.second_order):
            text = (
                "the guide's draws change, so the loss is an estimate: second-order optimizers need fixed_draws: true, "
                "or every part a first-order one"
            )
            raise ConfigError(self.source.mistake(("objective",), text))

    def _provenance(self, threads: int) -> Provenance:
        model = self.request.model if self.request.model is not None else self.config.model
        source = self.model
        files = source.files or {f"<{source.name}>": digest_callable(source.model)}
        config = dump(self.config)
        reference = _absolute_reference(model) if isinstance(model, str) else source.name
        config["model"] = reference if isinstance(model, str) else None
        return Provenance(
            config,
            reference,
            files,
            self.data_files,
            digest_arguments(self.arguments),
            sorted(self.request.arguments),
            not isinstance(model, str),
            threads,
            versions(),
        )

    # mistakes ---------------------------------------------------------------------------------------------------

    def _stage(self, action: Callable[[], Any]) -> Any:
        """Do one stage; when it fails, what was wrong before is reported with it."""
        try:
            return action()
        except HofitError as error:
            raise self._raise(error) from error

    def _raise(self, error: HofitError) -> HofitError:
        if isinstance(error, DataError):
            located = DataError(self.source.mistake(error.key, str(error)), error.key)
            return ConfigError([*self.mistakes, str(located)]) if self.mistakes else located
        if not self.mistakes or isinstance(error, ConfigError):
            return error
        return ConfigError([*self.mistakes, str(error)])

    def _mistake(self, key: tuple[str | int, ...], text: str) -> None:
        self.mistakes.append(self.source.mistake(key, text))


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "hofit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro-ppl": metadata.version("pyro-ppl"),
    }


SMALL = 100_000
"""Numbers in the data and the parameters below which one thread is taken: torch splits no elementwise operation of less
than 32,768, and on a busy machine two threads make a small factorisation a hundred times slower than one."""


def _threads(asked: int | None, arguments: Mapping[str, Any], params: Params) -> int:
    if asked is not None:
        return asked
    tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)] + list(params.values())
    return 1 if sum(tensor.numel() for tensor in tensors) < SMALL else torch.get_num_threads()


def _runs_out(schedule: Mapping[str, Any] | None, iterations: int) -> str | None:
    """Why a schedule cannot last for all iterations: torch's one_cycle raises after its last step."""
    if schedule is None or schedule.get("name") != "one_cycle":
        return None
    total = schedule.get("total_steps") or (schedule.get("epochs") or 0) * (schedule.get("steps_per_epoch") or 0)
    if isinstance(total, int) and 0 < total < iterations:
        return f"one_cycle ends after {total} steps, before stop.max_iterations ({iterations})"
    return None


def _absolute_reference(reference: str) -> str:
    location, name = split_reference(reference)
    if location.endswith(".py") or "/" in location:
        return f"{Path(location).expanduser().resolve()}:{name}"
    return reference


def _device_mistake(device: str) -> str | None:
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return f"no device {device!r} here: {str(error).splitlines()[0]}"
    return None if kind != "meta" else "the meta device holds no numbers"
