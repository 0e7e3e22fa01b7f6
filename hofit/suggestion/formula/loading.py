"""The code of a written module's ``load_data``."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from .code import is_constant, quoted
from .design import Design, Parameter
from .names import INTERCEPT

LOADED = "The arguments of a file's rows; of rows to be predicted, by the levels and knots of the file `like`."


def load_data_code(design: Design) -> str:
    """The function's whole text."""
    read = f"pd.{design.reader}"
    columns = ", ".join(quoted(name) for name in design.columns)
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
        value = f"fitted[{quoted(text)}].iloc[0]"
        plain = text.isidentifier() and not keyword.iskeyword(text) and text != "self"
        filled = f".assign({text}={value})" if plain else f".assign(**{{{quoted(text)}: {value}}})"
    lines.append(f"        table = {read}(path){filled}[columns].dropna()")
    groups = {one.group: one for one in design.effects}
    for one in groups.values():
        factors = ", ".join(map(quoted, one.bar.factors))
        lines.append(f"    {one.group}, {one.count} = groups([{factors}], table, fitted)")
    lines.append("    return {")
    for name, value, comment in arguments_of(design):
        lines.append(f'        "{name}": {value},' + (f"  # {comment}" if comment else ""))
    return "\n".join([*lines, "    }"])


def arguments_of(design: Design) -> Iterator[tuple[str, str, str]]:
    """Name, code and comment of each argument of the model."""
    formula = design.formula
    levels = f"0 to {len(design.levels) - 1}: {', '.join(design.levels)}" if design.levels else ""
    yield design.response, _response(design), levels
    if design.trials is not None:
        yield design.names["trials"], _trials(design.trials), ""
    if design.fixed and not is_constant(design.fixed):
        drop = "[:, 1:]" if design.cutpoints else ""
        comment = _columns(design.fixed) + ("; the cutpoints are the intercepts" if design.cutpoints else "")
        yield "X", f"matrix({quoted(formula.fixed)}, table, fitted){drop}", comment
    if formula.offsets:
        yield (
            "offset",
            " + ".join(f"matrix({quoted(f'0 + {one}')}, table, fitted)[:, 0]" for one in formula.offsets),
            "",
        )
    groups: set[str] = set()
    for one in design.effects:
        if one.argument is not None:
            column = "[:, 0]" if len(one.sds) == 1 else ""
            yield one.argument, f"matrix({quoted(one.bar.effects)}, table, fitted){column}", _columns(one.sds)
        if one.group not in groups:
            groups.add(one.group)
            yield one.group, one.group, ""
            yield one.count, one.count, ""
    for name, part in (("zero_X", design.zero), ("dispersion_X", design.dispersion)):
        if part and not is_constant(part[1]):
            yield name, f"matrix({quoted(part[0])}, table, fitted)", _columns(part[1])


def _response(design: Design) -> str:
    text = design.formula.response.text
    if text not in design.columns:
        return f"matrix({quoted(f'0 + {text}')}, table, fitted)[:, 0]"
    if design.levels:
        return f"table.groupby({quoted(text)}).ngroup().to_numpy({'' if design.cutpoints else 'float'})"
    return f"table[{quoted(text)}].to_numpy(float)"


def _trials(trials: str) -> str:
    try:
        return f"np.full(len(table), {float(trials)})"
    except ValueError:
        return f"table[{quoted(trials)}].to_numpy(float)"


def _columns(parameters: list[Parameter]) -> str:
    text = ", ".join("1" if one.label == INTERCEPT else one.label for one in parameters)
    return text if len(text) <= 60 else ""
