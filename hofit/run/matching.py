"""The config against the model: which pattern speaks for which name, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..config.mistakes import Mistakes
from ..config.schema import Config
from ..config.source import KeyPath
from ..curvature.rows import rows_from_plates
from ..errors import ModelError
from ..model.enumeration import no_leaf
from ..model.program import Program
from ..objective.base import Objective
from ..objective.quadrature import WIDEST
from ..optim.mixed import MixedMultiOptimizer
from ..optim.newton import unmatched_radii
from ..optim.registry import mistakes_in
from ..optim.spec import OptimizerSpec
from ..patterns import Ownership, matches, near_misses, speaking_pattern
from .data import Share

INTEGRATE = ("objective", "integrate")

SHOWN = 12
"""Idle patterns of an entry that are told with what is near them: that takes a while for each."""


def optimizer_specs(
    config: Config, known: Mapping[str, OptimizerSpec], mistakes: Mistakes
) -> list[OptimizerSpec | None]:
    """What each entry asks for, None where there is no such optimizer; its options are checked."""
    specs = [known.get(entry.optimizer) for entry in config.optimizers]
    for entry, spec in zip(config.optimizers, specs, strict=True):
        if spec is None:
            text = f"no optimizer {entry.optimizer!r}{near_misses(entry.optimizer, known)}"
            mistakes.add((*entry.key, "optimizer"), text)
            continue
        short = _runs_out(entry.schedule, config.stop.max_iterations)
        if short is not None:
            mistakes.add((*entry.key, "schedule"), short)
        for key, text in mistakes_in(spec, entry.options, entry.schedule):
            mistakes.add((*entry.key, *key.split(".")) if key else entry.key, text)
    return specs


def _runs_out(schedule: Mapping[str, Any] | None, iterations: int) -> str | None:
    """Why a schedule cannot last for all iterations: torch's one_cycle raises after its last step."""
    if schedule is None or schedule.get("name") != "one_cycle":
        return None
    total = schedule.get("total_steps") or (schedule.get("epochs") or 0) * (schedule.get("steps_per_epoch") or 0)
    if isinstance(total, int) and 0 < total < iterations:
        return f"one_cycle ends after {total} steps, before stop.max_iterations ({iterations})"
    return None


def match(
    key: KeyPath, values: Mapping[str, Any], names: list[str], program: Program, mistakes: Mistakes
) -> dict[str, str]:
    """Name → the pattern that speaks for it; a pattern that matches nothing is a mistake."""
    for pattern in values:
        if not any(matches(pattern, name) for name in names):
            mistakes.add((*key, pattern), nothing_matches(pattern, "parameter or latent", names, program))
    return _spoken(values, names)


IDLE = (
    "the entry gets no parameter: all it matches are taken above, fixed or integrated; leave it out, or put it above "
    "the entry that takes them"
)


def nothing_matches(pattern: str, kind: str, names: Collection[str], program: Program) -> str:
    """Why a pattern matches nothing of a kind: what else has such a name, or the near misses among ``names``."""
    seen = [f"{name!r} {what}" for name, what in program.not_fitted.items() if matches(pattern, name)]
    if seen:
        return f"{seen[0]}: leave it out, for only parameters and latents are fitted"
    return f"no {kind} matches {pattern!r}{near_misses(pattern, names)}"


def _spoken(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    found = {name: speaking_pattern(values, name) for name in names}
    return {name: pattern for name, pattern in found.items() if pattern is not None}


def constrained(
    key: KeyPath, values: Mapping[str, Any], spoken: Mapping[str, str], program: Program, mistakes: Mistakes
) -> dict[str, Any]:
    """Name → the value that its pattern gives it; one outside of the support, or of another shape, is a mistake."""
    found = {}
    for name, pattern in spoken.items():
        try:
            found[name] = program.constrained_like(name, values[pattern])
        except ValueError as error:
            mistakes.add((*key, pattern), f"{name!r}: {error}")
    return found


def integrated(
    config: Config, program: Program, names: list[str], fixed: Mapping[str, str], mistakes: Mistakes
) -> dict[str, str]:
    """Latent → the method that integrates it."""
    asked = {p: how for p, how in config.objective.integrate.items() if how != "enumerate"}
    for pattern, method in asked.items():
        key = (*INTEGRATE, pattern)
        matched = [name for name in names if matches(pattern, name)]
        parameters = [name for name in matched if name in program.parameters]
        if parameters:
            mistakes.add(key, f"{parameters[0]!r} is a parameter: only latents (sample sites) can be integrated")
        elif not matched and not any(matches(pattern, name) for name in program.discrete):
            mistakes.add(key, nothing_matches(pattern, "latent", program.latents, program))
        for name in matched:
            if name in fixed:
                mistakes.add(key, f"{name!r} is both fixed and integrated")
            width = program.sites[name].row_length
            if method == "aghq" and width > WIDEST:
                mistakes.add(key, f"aghq: a row of {name!r} has {width} numbers, and {WIDEST} are the most")
    spoken = _spoken(asked, program.latents)
    methods = {name: str(asked[pattern]) for name, pattern in spoken.items()}
    _check_rows(program, methods, spoken, mistakes)
    return methods


def _check_rows(program: Program, methods: Mapping[str, str], patterns: Mapping[str, str], mistakes: Mistakes) -> None:
    """Sites of one plate form its rows together: one method, and for aghq few numbers in all."""
    sites = {name: program.sites[name] for name in methods}
    for group in rows_from_plates(list(methods), sites) if sites else []:
        by_nodes = [name for name in group.names if methods[name] == "aghq"]
        if not by_nodes or group.rows < 2:
            continue
        key, names = (*INTEGRATE, patterns[by_nodes[0]]), " and ".join(map(repr, group.names))
        if len(by_nodes) < len(group.names):
            mistakes.add(key, f"{names} form one row: integrate them by one method")
        elif group.length > WIDEST and all(sites[name].row_length <= WIDEST for name in group.names):
            mistakes.add(key, f"aghq: a row of {names} has {group.length} numbers, and {WIDEST} are the most")


def check_discrete(config: Config, program: Program, mistakes: Mistakes) -> None:
    """Patterns that say `enumerate`, and discrete latents that a pattern speaks for."""
    integrate, found = config.objective.integrate, program.discrete
    for pattern, method in integrate.items():
        if method != "enumerate":
            continue
        others = [name for name in program.sites if speaking_pattern(integrate, name) == pattern]
        for name in others:
            role, constraint = program.sites[name].role, program.sites[name].constraint
            what = "a parameter" if role == "parameter" else f"continuous ({constraint})"
            mistakes.add(
                (*INTEGRATE, pattern),
                f"{name!r} is {what}: only discrete latents can be enumerated; take laplace, or leave it out",
            )
        if not others and not any(matches(pattern, name) for name in found):
            mistakes.add((*INTEGRATE, pattern), nothing_matches(pattern, "discrete latent", found, program))
    for name, site in found.items():
        spoken = speaking_pattern(integrate, name)
        if spoken is None:
            mistakes.add(INTEGRATE, no_leaf(name, site.distribution))
        elif not site.has_finite_support:
            text = "no finite list of values to sum over: take a dist.Categorical over as many as matter"
            mistakes.add((*INTEGRATE, spoken), f"{name!r} ({site.distribution}) has {text}")
        elif integrate[spoken] != "enumerate":
            text = f"{name!r} is discrete ({site.distribution}): give it `enumerate`"
            mistakes.add((*INTEGRATE, spoken), text)


def check_ownership(
    config: Config,
    specs: list[OptimizerSpec | None],
    program: Program,
    free: list[str],
    ownership: Ownership,
    mistakes: Mistakes,
) -> None:
    """Every free name has an entry, every entry a name, and every pattern something to say."""
    salvaged = len(config.optimizers) != len(mistakes.source.data.get("optimizers") or [])
    if ownership.orphans and not salvaged:
        listed = ", ".join(repr(name) for name in ownership.orphans[:12])
        mistakes.add(("optimizers",), f"no entry matches {listed}: add one, or `fixed:`")
    for entry, owned, spec in zip(config.optimizers, ownership.owners, specs, strict=True):
        at = (*entry.key, "params")
        idle = [pattern for pattern in entry.patterns if not any(matches(pattern, name) for name in program.sites)]
        for pattern in idle[:SHOWN]:
            mistakes.add(at, nothing_matches(pattern, "parameter", free, program))
        if len(idle) > SHOWN:
            mistakes.add(at, f"{len(idle) - SHOWN} more of its patterns match nothing: {', '.join(idle[SHOWN:])}")
        if not owned and not idle:
            mistakes.add(at, IDLE)
        for pattern in unmatched_radii(entry.options.get("trust_radius"), owned):
            text = f"no parameter of this entry matches {pattern!r}{near_misses(pattern, owned)}"
            mistakes.add((*entry.key, "trust_radius", pattern), text)
        for name in owned if spec is not None else []:
            wrong = spec.fits_shape(program.sites[name].shape) if spec is not None else None
            if wrong:
                mistakes.add(at, f"{name!r}: {wrong}")


def refuse_subsampling(program: Program, optimizer: MixedMultiOptimizer, integral: bool) -> None:
    """A subsampled plate makes the loss an estimate. Raises: ModelError where something needs it exactly."""
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


def refuse_changing_draws(objective: Objective, optimizer: MixedMultiOptimizer, mistakes: Mistakes) -> None:
    """A guide's draws that change make the loss an estimate. Raises: ConfigError where something needs it exactly."""
    if not objective.settles and (optimizer.judges or optimizer.second_order):
        raise mistakes.error(
            ("objective",),
            "the guide's draws change, so the loss is an estimate: second-order optimizers need fixed_draws: true, "
            "or every part a first-order one",
        )


def local_names(
    share: Share, config: Config, program: Program, methods: Mapping[str, str], mistakes: Mistakes
) -> list[str]:
    """What stands in the rows of the plate that is shared out among pieces of the data.

    Raises: ConfigError where there is no such plate, or something couples the pieces.
    """
    plate = share.plate = share.plate or _plate_of(program, methods, mistakes)
    plates = {one.name for site in program.sites.values() for one in site.plates}
    if plate is None:
        return []
    if plate not in plates and (methods or near_misses(plate, sorted(plates))):
        raise mistakes.error(("shard", "plate"), f"no plate {plate!r}{near_misses(plate, sorted(plates))}")
    local = [
        name
        for name, site in program.sites.items()
        if site.role != "fixed" and any(one.name == plate for one in site.plates)
    ]
    crossed = [name for name in methods if name not in local]
    if crossed:
        raise mistakes.error(
            INTEGRATE,
            f"{', '.join(map(repr, crossed))} {'is' if len(crossed) == 1 else 'are'} integrated out and not in the "
            f"plate {plate!r}: every piece of the data would touch it, and no piece could integrate by itself. Leave "
            "it out of integrate, so that it is a parameter of all, or fit without `shard`",
        )
    left = [name for name in local if methods and name not in methods]
    if left:
        raise mistakes.error(
            INTEGRATE,
            f"{', '.join(map(repr, left))}: in the plate {plate!r} that is shared out, and not integrated out",
        )
    if len(local) == sum(site.role not in ("fixed", "integrated") for site in program.sites.values()):
        raise mistakes.error(("shard",), f"everything is in the plate {plate!r}: the pieces share nothing to be fitted")
    return local


def _plate_of(program: Program, methods: Mapping[str, str], mistakes: Mistakes) -> str | None:
    """The plate that all stand in that are integrated out, or the only one that any site stands in; None without.

    Raises: ConfigError where there are several.
    """
    of_site = {name: {plate.name for plate in site.plates} for name, site in program.sites.items()}
    every = set().union(*of_site.values())
    found = set.intersection(*(of_site[name] for name in methods)) if methods else every
    if len(found) > 1 or (methods and not found):
        raise mistakes.error(("shard",), f"say which plate is shared out: plate: NAME ({', '.join(sorted(every))})")
    return found.pop() if found else None
