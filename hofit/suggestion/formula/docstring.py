"""What a written module says of itself: its formula, the model as mathematics, and its parameters."""

from __future__ import annotations

from collections.abc import Iterator

from .code import fixed_terms, wrapped
from .design import Design


def docstring(design: Design) -> str:
    """The head of the file, quotes included."""
    family, effects = design.family, design.effects
    how = "restricted maximum likelihood (REML)" if design.reml else "maximum likelihood"
    law = family.law.format(trials=design.names["trials"]).replace("y_i", f"{design.response}_i")
    if family.name != "ordinal":
        law = f"{design.response}_i ~ {law}"
    terms = fixed_terms(design, "X beta")
    terms += ["offset"] if design.formula.offsets else []
    terms += [f"{f'{one.argument} ' if one.argument else ''}{one.latent}[{one.group}]" for one in effects]
    name = family.name.replace("_", " ")
    article = "An" if name[0] in "aeiou" else "A"
    lines = [design.formula.text, "", *wrapped(f"{article} {name} model by {how}, written by hofit init --formula.")]
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
        yield from wrapped(f"Parameters: {'; '.join(said)}.")
    latents = [f"{named}, the fixed effects"] if design.reml and design.fixed else []
    latents += [f"`{one.latent}`, each {':'.join(one.bar.factors)}'s own departure" for one in design.effects]
    if latents:
        yield from wrapped(f"Latents, integrated out: {'; '.join(latents)}.")
    if design.family.name == "bernoulli" and design.levels:
        yield from wrapped(
            f"{design.response} is 1 where it is {design.levels[1]!r}, 0 where it is {design.levels[0]!r}."
        )
