"""What a config may say, with its defaults.

What stands below a field describes its key to users: the JSON Schema has these sentences.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..patterns import invalid


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=False)


def _patterns(value: str | list[str]) -> str | list[str]:
    for pattern in [value] if isinstance(value, str) else value:
        wrong = invalid(pattern)
        if wrong:
            raise ValueError(wrong)
    if value == []:
        raise ValueError("an empty list matches nothing")
    return value


MANY = 1000
"""Patterns of one entry, probes, particles, checkpoints, threads: whoever writes more has mistyped."""

Patterns = Annotated[str | Annotated[list[str], Field(max_length=MANY)], AfterValidator(_patterns)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def _whole(value: Any) -> Any:
    """1e3 is a number, and a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Few = Annotated[int, Field(ge=1, le=MANY), BeforeValidator(_whole)]


def _pattern_keys(value: dict[str, Any]) -> dict[str, Any]:
    for pattern in value:
        _patterns(pattern)
    return value


PatternMap = Annotated[dict[str, Any], AfterValidator(_pattern_keys)]


class Column(_Strict):
    """One model argument made from a column of the table."""

    column: str | list[str]
    """The column's name; several are numbered by the combinations that occur, with codes."""
    codes: bool | str = False
    """Number the levels from 0: true, or the name of what is numbered. Columns of one name, or of one `levels`, share
    their numbers."""
    levels: str | None = None
    """The argument that takes how many levels there are."""
    order: list[Any] | None = None
    """The levels in this order; one that is not listed is an error. Sorted when left out."""
    dtype: Literal["float", "float32", "float64", "long", "int", "bool"] | None = None
    """Of the tensor; the config's own dtype when left out."""

    @model_validator(mode="after")
    def _codes_or_numbers(self) -> Column:
        if not self.codes:
            if self.levels is not None or self.order is not None:
                raise ValueError("levels and order need codes: true")
            if isinstance(self.column, list):
                raise ValueError("several columns need codes: true (the combinations that occur)")
        elif self.dtype is not None:
            raise ValueError("codes are always long: leave dtype out")
        if self.column == []:
            raise ValueError("column: an empty list names no column")
        return self


def _column_shorthand(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class Data(_Strict):
    """Where the model's arguments come from."""

    path: str | None = None
    """A table: .csv, .csv.gz, .json, .npz or .parquet; relative to this file."""
    columns: dict[str, Annotated[Column, BeforeValidator(_column_shorthand)]] = {}
    """Argument of the model: column of the table, by its name or with more keys."""
    missing: Literal["error", "drop"] = "error"
    """What to do with rows that have an empty, NA or NaN cell in a column that is used."""
    observations: Count | None = None
    """How many there are, where the entries of the observed sites do not tell."""
    arguments: dict[str, Any] = {}
    """More arguments of the model, as they are."""
    options: dict[str, Any] = {}
    """Handed to the module's load_data."""

    @model_serializer(mode="wrap")
    def _what_was_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in whole(self).items() if key != "observations" or value is not None}


class Objective(_Strict):
    """What is minimised."""

    # One model for all types: of a union, pydantic would not say in one sentence which keys belong to another type.
    type: Literal["map", "map_unconstrained", "marginal", "elbo"] = "map"
    """map: the density of the constrained values; map_unconstrained: that of the unconstrained ones; marginal: latents
    integrated out; elbo: a guide's bound."""
    integrate: Annotated[dict[str, Literal["laplace", "aghq", "enumerate"]], AfterValidator(_pattern_keys)] = {}
    """Pattern of latents: how they are integrated out; perhaps with the structure of the inner problem's Hessian,
    {method: laplace, structure: dense}."""
    nodes: Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)] | None = None
    """Of adaptive Gauss-Hermite quadrature, a dimension; null: 9."""
    logdet: Literal["exact", "stochastic"] | None = None
    """Of the Hessian of what is integrated by laplace; null: exact."""
    probes: Annotated[int, Field(ge=2, le=MANY), BeforeValidator(_whole)] | None = None
    """Of a stochastic logdet; null: 32."""
    jacobian: bool | None = None
    """Optimise what is not integrated as under map_unconstrained."""
    uncertainty: Literal["conditional", "full"] | None = None
    """Whether the errors of integrated latents hold the uncertainty of the parameters, too; null: conditional."""
    autoguide: Literal["normal", "multivariate_normal", "low_rank"] | None = None
    """A guide of Pyro's, where the module has none."""
    particles: Few | None = None
    """Draws that the bound is a mean of; null: 1."""
    fixed_draws: bool | None = None
    """Take the same draws at every iteration, which makes the bound a function."""
    _structures: dict[str, str] = PrivateAttr(default_factory=dict)
    """By pattern, as given."""

    @property
    def structure(self) -> str:
        """Of the Hessian of what is integrated."""
        return next(iter(self._structures.values()), "auto")

    @model_validator(mode="wrap")
    @classmethod
    def _structures_apart(cls, data: Any, handler: ModelWrapValidatorHandler[Objective]) -> Objective:
        structures: dict[str, str] = {}
        given = data.get("integrate") if isinstance(data, dict) else None
        if isinstance(given, dict):
            words = dict(given)
            for pattern, value in given.items():
                if isinstance(value, dict) and "method" in value and set(value) <= {"method", "structure"}:
                    words[pattern] = value["method"]
                    if value.get("structure") is not None:
                        structures[pattern] = value["structure"]
            data = {**data, "integrate": words}
        found = handler(data)
        listed = ", ".join(INNER_STRUCTURES)
        for pattern, structure in structures.items():
            if structure not in INNER_STRUCTURES:
                raise ValueError(f"integrate: {pattern}: structure must be one of {listed}, not {structure!r}")
            if found.integrate[pattern] == "enumerate":
                raise ValueError(f"integrate: {pattern}: what is enumerated has no structure")
        if len(set(structures.values())) > 1:
            raise ValueError("integrate: one structure for all that is integrated, for their Hessian is one")
        if "sparse" in structures.values() and "aghq" in found.integrate.values():
            raise ValueError("integrate: aghq takes rows that are independent: structure sparse goes with laplace")
        if structures and found.logdet == "stochastic":
            raise ValueError("logdet: stochastic takes the pattern as it is: leave structure out")
        found._structures = structures
        return found

    @model_validator(mode="after")
    def _keys_of_the_type(self) -> Objective:
        given = [key for key in type(self).model_fields if key != "type" and getattr(self, key) not in (None, {})]
        wrong = [key for key in given if key not in KEYS_OF[self.type]]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: no key of the objective {self.type!r}")
        methods = set(self.integrate.values())
        if self.type == "marginal" and not methods:
            raise ValueError('a marginal objective needs integrate: {"pattern": laplace | aghq | enumerate}')
        if self.type != "marginal" and methods - {"enumerate"}:
            raise ValueError(f"{self.type!r} takes `enumerate` only; laplace and aghq need type: marginal")
        if self.nodes is not None and "aghq" not in methods:
            raise ValueError("nodes: nothing is integrated by aghq")
        if self.logdet == "stochastic":
            if "aghq" in methods:
                raise ValueError("logdet: stochastic goes with laplace only: aghq takes rows one by one")
        elif self.probes is not None:
            raise ValueError("probes: they belong to logdet: stochastic")
        return self

    @model_serializer(mode="wrap")
    def _what_was_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found = {key: value for key, value in whole(self).items() if value not in (None, {})}
        for pattern, structure in self._structures.items():
            method = found["integrate"][pattern]
            found["integrate"] = {**found["integrate"], pattern: {"method": method, "structure": structure}}
        return found


INNER_STRUCTURES = ("auto", "diagonal", "rows", "arrowhead", "sparse", "dense")
"""What may be claimed of the Hessian of what is integrated: its determinant is wanted."""

KEYS_OF = {
    "map": ("integrate",),
    "map_unconstrained": ("integrate",),
    "marginal": ("integrate", "nodes", "logdet", "probes", "jacobian", "uncertainty"),
    "elbo": ("autoguide", "particles", "fixed_draws"),
}
"""What an objective of each type takes beside its type."""


def _objective_shorthand(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Init(_Strict):
    """Where the fit starts."""

    strategy: Literal["median", "sample", "zero", "uniform"] = "median"
    """Of latents: the median of draws from the prior, one draw, unconstrained zero, or uniform around it."""
    values: PatternMap = {}
    """Pattern: constrained start, a number or nested lists."""
    jitter: NotNegative = 0.0
    """Standard deviation of noise on the unconstrained starts of latents."""


class OptimizerEntry(BaseModel):
    """One entry of the mix. What it holds beside these keys are the optimizer's own options."""

    model_config = ConfigDict(extra="allow", strict=True)

    params: Patterns
    """Which parameters and latents: a glob, a list of globs, or "re:" and a regular expression. The first entry that
    matches has them."""
    optimizer: str
    """Its name: see `hofit optimizers`."""
    schedule: dict[str, Any] | None = None
    """Of the learning rate: the name of one of torch's schedulers, and its options."""
    _position: int = PrivateAttr(0)

    @property
    def key(self) -> tuple[str, int]:
        """Where the entry stands in the user's own list, from 0."""
        return ("optimizers", self._position)

    def stands_at(self, position: int) -> None:
        """Say where the entry stands: some of the user's may have been left out."""
        self._position = position

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def patterns(self) -> list[str]:
        return [self.params] if isinstance(self.params, str) else list(self.params)


class Stop(_Strict):
    """When to stop."""

    max_iterations: Annotated[int, Field(ge=0), BeforeValidator(_whole)] = 1000
    """Iterations at most."""
    max_seconds: Positive | None = None
    """Seconds at most; null: as long as it takes."""
    gradient: NotNegative = 1.0e-6
    """The max-norm of the unconstrained gradient below which a point may be a minimum."""
    decrement: NotNegative | None = None
    """What one Newton step could still lower the loss by, where rounding lets the gradient get no smaller; null:
    1e-12 · max(1, |loss|)."""
    relative_loss: NotNegative = 1.0e-12
    """A relative change of the loss that counts as none."""
    patience: Count = 3
    """Accepted steps without a change before the fit is taken to stand still."""


class Progress(_Strict):
    """What is shown while a fit runs."""

    every: Count = 10
    """Iterations between two rows on the screen."""


class CheckpointPolicy(_Strict):
    """How often the state is saved."""

    every: Count | None = None
    """Iterations; null: by time alone."""
    seconds: Positive = 60.0
    """Seconds between two checkpoints at most."""
    keep: Annotated[int, Field(ge=2, le=MANY), BeforeValidator(_whole)] = 2
    """Checkpoints that are kept."""


class Shard(_Strict):
    """Data in pieces: one a process under torchrun, or chunk after chunk in one process."""

    plate: str | None = None
    """The plate whose rows are shared out, with all that belongs to them; null: the one that the integrated latents
    stand in."""
    by: str | None = None
    """The column of the table that numbers the rows of the plate; null: the only one with codes. A load_data that takes
    `rank` and `world_size` loads its own piece, and needs none."""
    chunks: Count | None = None
    """Pieces that one process takes in turn, so that no more than one is in memory; null: one a process."""
    timeout: Positive = 1800.0
    """Seconds after which a process that does not answer ends the fit."""


def _yaml_word(value: Any) -> Any:
    """YAML reads off as false."""
    return "off" if value is False else value


class Config(_Strict):
    """The whole config; its field names are the contract with users."""

    model: str | None = None
    """path/to/model.py, path/to/model.py:name or package.module:name; relative to this file."""
    data: Data = Data()
    """Where the model's arguments come from."""
    objective: Annotated[Objective, BeforeValidator(_objective_shorthand)] = Objective()
    """What is minimised: the name of a type, or a mapping."""
    init: Init = Init()
    """Where the fit starts."""
    starts: Few = 1
    """How many starts are tried, this one the first; the best mode is kept."""
    fixed: PatternMap = {}
    """Pattern: the constrained value that is held; null: the start."""
    optimizers: Annotated[list[OptimizerEntry], Field(min_length=1)]
    """From top to bottom: the first entry that matches a parameter has it."""
    order: Literal["simultaneous", "alternating"] = "simultaneous"
    """Whether all entries step on one gradient, or each on its own."""
    stop: Stop = Stop()
    """When to stop."""
    progress: Progress = Progress()
    """What is shown while a fit runs."""
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    """How often the state is saved."""
    metrics: list[Literal["tensorboard"]] = []
    """Who else is told of every iteration: tensorboard, by event files in the run directory."""
    seed: Annotated[int, Field(ge=0, lt=2**32), BeforeValidator(_whole)] = 0
    """Of everything that is drawn."""
    dtype: Literal["float64", "float32"] = "float64"
    """Of all numbers."""
    device: str = "cpu"
    """As torch calls it."""
    capture: Annotated[Literal["auto", "off"], BeforeValidator(_yaml_word)] = "auto"
    """Whether evaluations may be replayed without the model."""
    threads: Few | None = None
    """Threads of torch during the fit; null: one for a small model, else as torch is set."""
    shard: Shard | None = None
    """Data in pieces; null: whole."""
