"""The code of a written module's ``model``."""

from __future__ import annotations

from .code import WIDTH, fixed_terms, is_constant
from .design import Design, Effects, Parameter
from .loading import arguments_of
from .names import INTERCEPT


def model_code(design: Design) -> str:
    """The function's whole text."""
    types = {one.count: "int" for one in design.effects}
    names = [name for name, _, _ in arguments_of(design)]
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
    terms = fixed_terms(design, "X @ beta")
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
