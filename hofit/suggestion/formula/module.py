"""A design as the text of a Python module, in the style of the files in models/: to be read, and edited."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterator

from .design import Design, Effects, Parameter
from .names import INTERCEPT

WIDTH = 116
"""Of a line, in signs."""

LOADED = "The arguments of a file's rows; of rows to be predicted, by the levels and knots of the file `like`."

COEFFICIENT = '''\
def coefficient(name: str, start: float) -> Tensor:
    """A fixed effect, by maximum likelihood."""
    return pyro.param(name, torch.tensor(start))
'''

RESTRICTED = '''\
def coefficient(name: str) -> Tensor:
    """A fixed effect under a flat prior: integrated out, it leaves the restricted likelihood (REML)."""
    return pyro.sample(name, dist.ImproperUniform(constraints.real, (), ()))
'''

POSITIVE = """\
def positive(name: str, start: float) -> Tensor:
    return pyro.param(name, torch.tensor(start), constraint=constraints.positive)
"""

CHOLESKY = '''\
def cholesky_factor(sds: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    unit = torch.stack([torch.ones(()), torch.zeros(()), correlation, (1 - correlation**2).sqrt()]).reshape(2, 2)
    return sds[:, None] * unit
'''

MATRIX = '''\
def matrix(formula: str, table: pd.DataFrame, fitted: pd.DataFrame) -> np.ndarray:
    """The design matrix of a formula's right side, (rows, columns), with the levels and knots of `fitted`."""
    design = design_matrices(formula, fitted, na_action="error")
    return design.common.evaluate_new_data(table).design_matrix.astype(float)
'''

MATRIX_WITH_FUNCTIONS = '''\
def matrix(formula: str, table: pd.DataFrame, fitted: pd.DataFrame) -> np.ndarray:
    """The design matrix of a formula's right side, (rows, columns), with the levels and knots of `fitted`."""
    functions = {FUNCTIONS}  # that a formula may call
    design = design_matrices(formula, fitted, na_action="error", extra_namespace=functions)
    return design.common.evaluate_new_data(table).design_matrix.astype(float)
'''

GROUPS = '''\
def groups(columns: list[str], table: pd.DataFrame, fitted: pd.DataFrame) -> tuple[np.ndarray, int]:
    """The group of each row, and how many there are: those of `fitted` in order, then what is new in `table`."""
    every = pd.concat([fitted[columns].sort_values(columns), table[columns]]).drop_duplicates()
    levels = pd.MultiIndex.from_frame(every)
    return levels.get_indexer(pd.MultiIndex.from_frame(table[columns])), len(levels)
'''


def text_of_module(design: Design) -> str:
    """The whole file."""
    parts = [_load_data(design), _model(design)]
    parts += [RESTRICTED if design.reml else COEFFICIENT] if _has_coefficients(design) else []
    parts += [POSITIVE] if _has_positive(design) else []
    parts += [CHOLESKY] if any(len(one.sds) == 2 for one in design.effects) else []
    parts += [GROUPS] if design.effects else []
    if _needs_matrix(design):
        functions = ", ".join(f'"{name}": np.{name}' for name in design.functions)
        parts.append(MATRIX_WITH_FUNCTIONS.replace("FUNCTIONS", functions) if functions else MATRIX)
    body = "\n\n\n".join(part.rstrip("\n") for part in parts) + "\n"
    return f"{_head(design)}\n{_imports(design, body)}\n\n\n{body}"


def _head(design: Design) -> str:
    family, effects = design.family, design.effects
    how = "restricted maximum likelihood (REML)" if design.reml else "maximum likelihood"
    law = family.law.format(trials=design.names["trials"]).replace("y_i", f"{design.response}_i")
    if family.name != "ordinal":
        law = f"{design.response}_i ~ {law}"
    terms = _fixed_terms(design, "X beta")
    terms += ["offset"] if design.formula.offsets else []
    terms += [f"{f'{one.argument} ' if one.argument else ''}{one.latent}[{one.group}]" for one in effects]
    name = family.name.replace("_", " ")
    article = "An" if name[0] in "aeiou" else "A"
    lines = [design.formula.text, "", *_wrapped(f"{article} {name} model by {how}, written by hofit init --formula.")]
    lines += ["", f"    {law}", f"    eta = {' + '.join(terms) or '0'}"]
    for one in effects:
        size = len(one.sds)
        lines.append(f"    {one.latent}[k] ~ Normal(0, {one.sds[0].name if size == 1 else f'Σ of {size} × {size}'})")
    if design.zero:
        lines.append(f"    or, with probability z_i, zero:   logit z_i = {design.zero[0]}")
    if design.dispersion:
        lines.append(f"    log {family.parameter}_i = {design.dispersion[0]}")
    lines += ["", *_described(design), ""]
    return '"""' + "\n".join(lines).replace("\\", "\\\\").rstrip() + '\n"""\n'


def _described(design: Design) -> Iterator[str]:
    family = design.family
    said = []
    named = ", ".join(f"`{one.name}`" for one in design.fixed)
    if design.fixed and not design.reml:
        said.append(f"{named}: the fixed effects")
    if design.cutpoints:
        said.append(f"`cutpoints`: between the levels {', '.join(design.levels)}")
    for one in design.effects:
        said.append(
            f"{', '.join(f'`{sd.name}`' for sd in one.sds)}: standard deviations over {':'.join(one.bar.factors)}"
        )
        if one.correlation and len(one.sds) == 2:
            said.append(f"`{one.correlation}`: of these two")
        elif one.correlation:
            said.append(f"`{one.correlation}`: the Cholesky factor of their correlations")
    if design.parameter:
        said.append(f"`{design.parameter}`: {family.meaning}")
    if family.name == "student_t":
        said.append("`df`: the degrees of freedom")
    for part, what in ((design.zero, "logit of the share of zeros"), (design.dispersion, f"log {family.parameter}")):
        if part:
            said.append(f"{', '.join(f'`{one.name}`' for one in part[1])}: of the {what}")
    if said:
        yield from _wrapped(f"Parameters: {'; '.join(said)}.")
    latents = [f"{named}, the fixed effects"] if design.reml and design.fixed else []
    latents += [f"`{one.latent}`, each {':'.join(one.bar.factors)}'s own departure" for one in design.effects]
    if latents:
        yield from _wrapped(f"Latents, integrated out: {'; '.join(latents)}.")
    if design.family.name == "bernoulli" and design.levels:
        yield from _wrapped(
            f"{design.response} is 1 where it is {design.levels[1]!r}, 0 where it is {design.levels[0]!r}."
        )


def _imports(design: Design, body: str) -> str:
    lines = ["from pathlib import Path", ""]
    lines += ["import numpy as np"] if "np." in body else []
    lines += ["import pandas as pd", "import pyro", "import pyro.distributions as dist", "import torch"]
    lines += ["from formulae import design_matrices"] if _needs_matrix(design) else []
    lines += ["from torch import Tensor"]
    lines += (
        ["from torch.distributions import constraints"] if "=constraints." in body or "(constraints." in body else []
    )
    return "\n".join(lines)


def _load_data(design: Design) -> str:
    read = f"pd.{design.reader}"
    columns = ", ".join(_quoted(name) for name in design.columns)
    lines = [
        "def load_data(path: Path, like: Path | None = None) -> dict[str, object]:",
        f'    """{LOADED}"""',
        f"    columns = [{columns}]",
        f"    table = fitted = {read}(like or path)[columns].dropna()  # the complete rows, as R takes them",
        "    if like:  # what shall be predicted needs no response: any value does",
    ]
    text = design.formula.response.text
    filled = ""
    if text in design.columns:
        value = f"fitted[{_quoted(text)}].iloc[0]"
        plain = text.isidentifier() and not keyword.iskeyword(text) and text != "self"
        filled = f".assign({text}={value})" if plain else f".assign(**{{{_quoted(text)}: {value}}})"
    lines.append(f"        table = {read}(path){filled}[columns].dropna()")
    groups = {one.group: one for one in design.effects}
    for one in groups.values():
        factors = ", ".join(map(_quoted, one.bar.factors))
        lines.append(f"    {one.group}, {one.count} = groups([{factors}], table, fitted)")
    lines.append("    return {")
    for name, value, comment in _arguments(design):
        lines.append(f'        "{name}": {value},' + (f"  # {comment}" if comment else ""))
    return "\n".join([*lines, "    }"])


def _arguments(design: Design) -> Iterator[tuple[str, str, str]]:
    """Name, code and comment of each argument of the model."""
    formula = design.formula
    levels = f"0 to {len(design.levels) - 1}: {', '.join(design.levels)}" if design.levels else ""
    yield design.response, _response(design), levels
    if design.trials is not None:
        yield design.names["trials"], _trials(design.trials), ""
    if design.fixed and not is_constant(design.fixed):
        drop = "[:, 1:]" if design.cutpoints else ""
        comment = _columns(design.fixed) + ("; the cutpoints are the intercepts" if design.cutpoints else "")
        yield "X", f"matrix({_quoted(formula.fixed)}, table, fitted){drop}", comment
    if formula.offsets:
        yield (
            "offset",
            " + ".join(f"matrix({_quoted(f'0 + {one}')}, table, fitted)[:, 0]" for one in formula.offsets),
            "",
        )
    groups: set[str] = set()
    for one in design.effects:
        if one.argument is not None:
            column = "[:, 0]" if len(one.sds) == 1 else ""
            yield one.argument, f"matrix({_quoted(one.bar.effects)}, table, fitted){column}", _columns(one.sds)
        if one.group not in groups:
            groups.add(one.group)
            yield one.group, one.group, ""
            yield one.count, one.count, ""
    for name, part in (("zero_X", design.zero), ("dispersion_X", design.dispersion)):
        if part and not is_constant(part[1]):
            yield name, f"matrix({_quoted(part[0])}, table, fitted)", _columns(part[1])


def _response(design: Design) -> str:
    text = design.formula.response.text
    if text not in design.columns:
        return f"matrix({_quoted(f'0 + {text}')}, table, fitted)[:, 0]"
    if design.levels:
        return f"table.groupby({_quoted(text)}).ngroup().to_numpy({'' if design.cutpoints else 'float'})"
    return f"table[{_quoted(text)}].to_numpy(float)"


def _trials(trials: str) -> str:
    try:
        return f"np.full(len(table), {float(trials)})"
    except ValueError:
        return f"table[{_quoted(trials)}].to_numpy(float)"


def _model(design: Design) -> str:
    types = {one.count: "int" for one in design.effects}
    names = [name for name, _, _ in _arguments(design)]
    signature = ", ".join(f"{name}: {types.get(name, 'Tensor')}" for name in names)
    line = f"def model({signature}) -> None:"
    if len(line) > WIDTH and len(signature) + 4 <= WIDTH:
        line = f"def model(\n    {signature}\n) -> None:"
    elif len(line) > WIDTH:
        line = "\n".join(["def model(", *(f"    {one}," for one in signature.split(", ")), ") -> None:"])
    lines = [line]
    if design.fixed:
        lines += _stacked("beta", design.fixed, design, "X")
    for one in design.effects:
        lines += _scales(one)
    lines += _shapes(design)
    for one in design.effects:
        lines += ["", *_sampled(one)]
    lines += ["", *_predictor(design)]
    likelihood = design.family.likelihood.format(trials=design.names["trials"])
    if design.zero:
        lines.append(f"    base = {likelihood}")
        gate = _product("zero", design.zero[1]).strip("()")
        likelihood = f"dist.ZeroInflatedDistribution(base, gate_logits={gate})"
    lines.append(f'    with pyro.plate("rows", len({design.response})):')
    lines.append(f'        pyro.sample("{design.response}", {likelihood}, obs={design.response})')
    if len(lines[-1]) > WIDTH:
        inside = f'            "{design.response}", {likelihood}, obs={design.response}'
        lines[-1:] = ["        pyro.sample(", inside, "        )"]
    return "\n".join(lines)


def _stacked(name: str, parameters: list[Parameter], design: Design, matrix: str) -> list[str]:
    calls = [
        f'coefficient("{one.name}")' if design.reml else f'coefficient("{one.name}", {one.start!r})'
        for one in parameters
    ]
    if is_constant(parameters):
        return [f"    {parameters[0].name} = {calls[0]}"]
    comment = f"as the columns of {matrix}"
    short = f"    {name} = torch.stack([{', '.join(calls)}])  # {comment}"
    if len(short) <= WIDTH and all(one.label in (one.name, INTERCEPT) for one in parameters):
        return [short]
    notes = ["" if one.label in (one.name, INTERCEPT) else f"  # {one.label}" for one in parameters]
    rows = [f"            {call},{note}" for call, note in zip(calls, notes, strict=True)]
    return [f"    {name} = torch.stack(", "        [", *rows, "        ]", f"    )  # {comment}"]


def _scales(one: Effects) -> list[str]:
    calls = [f'positive("{sd.name}", {sd.start!r})' for sd in one.sds]
    if len(calls) == 1:
        return [f"    {one.sds[0].name} = {calls[0]}"]
    name = f"sds{one.latent[1:]}"
    lines = [f"    {name} = torch.stack([{', '.join(calls)}])"]
    if len(lines[0]) > WIDTH:
        lines = [
            f"    {name} = torch.stack(",
            "        [",
            *(f"            {call}," for call in calls),
            "        ]",
            "    )",
        ]
    if len(calls) == 2:
        start, kind = "torch.tensor(0.0)", "interval(-1.0, 1.0)"
    else:
        start, kind = f"torch.eye({len(calls)})", "corr_cholesky"
    site = f'pyro.param("{one.correlation}", {start}, constraint=constraints.{kind})'
    lines.append(f"    {one.correlation} = {site}")
    if len(lines[-1]) > WIDTH:
        inside = f'"{one.correlation}", {start}, constraint=constraints.{kind}'
        lines[-1:] = [f"    {one.correlation} = pyro.param(", f"        {inside}", "    )"]
    factor = (
        f"cholesky_factor({name}, {one.correlation})" if len(calls) == 2 else f"{name}[:, None] * {one.correlation}"
    )
    return [*lines, f"    {_factor(one)} = {factor}"]


def _factor(one: Effects) -> str:
    return f"scale_tril{one.latent[1:]}"


def _shapes(design: Design) -> list[str]:
    """The parameters of the response's own distribution."""
    lines = []
    if design.parameter:
        start = design.spread if design.parameter.startswith("sigma") else 1.0
        lines.append(f'    {design.family.parameter} = positive("{design.parameter}", {start!r})')
    if design.family.name == "student_t":
        lines.append('    df = positive("df", 5.0)')
    if design.cutpoints:
        lines.append(f"    start = torch.tensor({design.cutpoints})")
        lines.append('    cutpoints = pyro.param("cutpoints", start, constraint=dist.constraints.ordered_vector)')
    if design.dispersion:
        lines += _stacked("dispersion_beta", design.dispersion[1], design, "dispersion_X")
        lines.append(f"    {design.family.parameter} = {_product('dispersion', design.dispersion[1])}.exp()")
    if design.zero:
        lines += _stacked("zero_beta", design.zero[1], design, "zero_X")
    return lines


def _product(part: str, parameters: list[Parameter]) -> str:
    if is_constant(parameters):
        return parameters[0].name
    return f"({part}_X @ {part}_beta)"


def _sampled(one: Effects) -> list[str]:
    size = len(one.sds)
    if size == 1:
        law = f"dist.Normal(0.0, {one.sds[0].name})"
    else:
        law = f"dist.MultivariateNormal(torch.zeros({size}), scale_tril={_factor(one)})"
    shape = f"({one.count},)" if size == 1 else f"({one.count}, {size})"
    call = f'        {one.latent} = pyro.sample("{one.latent}", {law})'
    if len(call) + len(shape) + 4 > WIDTH:
        call = f'        {one.latent} = pyro.sample(\n            "{one.latent}", {law}\n        )'
    return [f'    with pyro.plate("{one.plate}", {one.count}):', f"{call}  # {shape}"]


def _predictor(design: Design) -> list[str]:
    terms = _fixed_terms(design, "X @ beta")
    terms += ["offset"] if design.formula.offsets else []
    for one in design.effects:
        own = f"{one.latent}[{one.group}]"
        if one.argument is None:
            terms.append(own)
        else:
            terms.append(f"{one.argument} * {own}" if len(one.sds) == 1 else f"({one.argument} * {own}).sum(-1)")
    terms = terms or [f"torch.zeros(len({design.response}))"]
    line = f"    eta = {' + '.join(terms)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"    eta = {terms[0]}", *(f"    eta = eta + {term}" for term in terms[1:])]


def _fixed_terms(design: Design, product: str) -> list[str]:
    """The fixed part of the predictor: an intercept alone needs no matrix."""
    if is_constant(design.fixed):
        return [design.fixed[0].name]
    return [product] if design.fixed else []


def is_constant(parameters: list[Parameter]) -> bool:
    return [one.label for one in parameters] == [INTERCEPT]


def _has_coefficients(design: Design) -> bool:
    return bool(design.fixed or design.zero or design.dispersion)


def _has_positive(design: Design) -> bool:
    return bool(design.effects or design.parameter or design.family.name == "student_t")


def _needs_matrix(design: Design) -> bool:
    return any("matrix(" in code for _, code, _ in _arguments(design))


def _columns(parameters: list[Parameter]) -> str:
    text = ", ".join("1" if one.label == INTERCEPT else one.label for one in parameters)
    return text if len(text) <= 60 else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
