"""What a config may say, with its defaults."""

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


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Few = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MANY)]


def _pattern_keys(value: dict[str, Any]) -> dict[str, Any]:
    for pattern in value:
        _patterns(pattern)
    return value


PatternMap = Annotated[dict[str, Any], AfterValidator(_pattern_keys)]


class Column(_Strict):
    """One model argument made from a column of the table.

    ``codes`` is true, or the name of what is numbered: columns of one name, or of one ``levels``, share their numbers.
    """

    column: str | list[str]
    codes: bool | str = False
    levels: str | None = None
    order: list[Any] | None = None
    dtype: Literal["float", "float32", "float64", "long", "int", "bool"] | None = None

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
    path: str | None = None
    columns: dict[str, Annotated[Column, BeforeValidator(_column_shorthand)]] = {}
    missing: Literal["error", "drop"] = "error"
    observations: Count | None = None
    """How many there are, where the entries of the observed sites do not tell."""
    arguments: dict[str, Any] = {}
    options: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _what_was_given(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in whole(self).items() if key != "observations" or value is not None}


class Objective(_Strict):
    """What is minimised. ``integrate`` says by pattern how latents are integrated out; None stands for the default.

    A method may be given with the structure of the inner problem's Hessian, ``{method: laplace, structure: dense}``.
    One model for all types: of a union, pydantic would not say in one sentence which keys belong to another type.
    """

    type: Literal["map", "map_unconstrained", "marginal", "elbo"] = "map"
    integrate: Annotated[dict[str, Literal["laplace", "aghq", "enumerate"]], AfterValidator(_pattern_keys)] = {}
    nodes: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=100)] | None = None
    """Of adaptive Gauss-Hermite quadrature, a dimension; None: 9."""
    logdet: Literal["exact", "stochastic"] | None = None
    """Of the Hessian of what is integrated by laplace; None: exact."""
    probes: Annotated[int, BeforeValidator(_whole), Field(ge=2, le=MANY)] | None = None
    """Of a stochastic one; None: 32."""
    jacobian: bool | None = None
    uncertainty: Literal["conditional", "full"] | None = None
    autoguide: Literal["normal", "multivariate_normal", "low_rank"] | None = None
    particles: Few | None = None
    """None: 1."""
    fixed_draws: bool | None = None
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
        if structures and found.logdet == "stochastic":
            raise ValueError("logdet: stochastic takes the pattern as it is: leave structure out")
        found._structures = structures
        return found

    @model_validator(mode="after")
    def _keys_of_the_type(self) -> Objective:
        given = [key for key in type(self).model_fields if key != "type" and getattr(self, key) not in (None, {})]
        wrong = [key for key in given if key not in _KEYS_OF[self.type]]
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


INNER_STRUCTURES = ("auto", "diagonal", "rows", "arrowhead", "dense")
"""What may be claimed of the Hessian of what is integrated: its determinant is wanted."""

_KEYS_OF = {
    "map": ("integrate",),
    "map_unconstrained": ("integrate",),
    "marginal": ("integrate", "nodes", "logdet", "probes", "jacobian", "uncertainty"),
    "elbo": ("autoguide", "particles", "fixed_draws"),
}
"""What an objective of each type takes beside its type."""


def _objective_shorthand(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Init(_Strict):
    strategy: Literal["median", "sample", "zero", "uniform"] = "median"
    values: PatternMap = {}
    jitter: NotNegative = 0.0


class OptimizerEntry(BaseModel):
    """One entry of the mix. What it holds beside these keys are the optimizer's own options."""

    model_config = ConfigDict(extra="allow", strict=True)

    params: Patterns
    optimizer: str
    schedule: dict[str, Any] | None = None
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
    """When to stop. ``gradient`` bounds the max-norm; ``decrement`` None means 1e-12 · max(1, |loss|)."""

    max_iterations: Annotated[int, BeforeValidator(_whole), Field(ge=0)] = 1000
    max_seconds: Positive | None = None
    gradient: NotNegative = 1.0e-6
    decrement: NotNegative | None = None
    relative_loss: NotNegative = 1.0e-12
    patience: Count = 3


class Progress(_Strict):
    every: Count = 10


class CheckpointPolicy(_Strict):
    every: Count | None = None
    """Iterations; None: by time alone."""
    seconds: Positive = 60.0
    keep: Annotated[int, BeforeValidator(_whole), Field(ge=2, le=MANY)] = 2


def _yaml_word(value: Any) -> Any:
    """YAML reads off as false."""
    return "off" if value is False else value


class Config(_Strict):
    """The whole config; its field names are the contract with users."""

    model: str | None = None
    data: Data = Data()
    objective: Annotated[Objective, BeforeValidator(_objective_shorthand)] = Objective()
    init: Init = Init()
    fixed: PatternMap = {}
    optimizers: Annotated[list[OptimizerEntry], Field(min_length=1)]
    order: Literal["simultaneous", "alternating"] = "simultaneous"
    stop: Stop = Stop()
    progress: Progress = Progress()
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dtype: Literal["float64", "float32"] = "float64"
    device: str = "cpu"
    capture: Annotated[Literal["auto", "off"], BeforeValidator(_yaml_word)] = "auto"
    """Whether evaluations may be replayed without the model."""
    threads: Few | None = None
    """Threads of torch during the fit; None: one for a small model, else as torch is set."""
