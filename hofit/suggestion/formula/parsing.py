"""A formula's text → its response, its fixed part, its bars and its offsets, each still a text of the library's.

A bar ``(effects | factor)`` is a block of its own: its effects are correlated. As in lme4, ``(x || g)`` is
``(1 | g) + (0 + x | g)`` and ``(1 | a/b)`` is ``(1 | a) + (1 | a:b)``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .scanning import LOOSE_BAR, NO_RESPONSE, Token, check_syntax, scan, wrong

FACTOR = re.compile(r"\s*(?:C\(\s*([\w.]+|`[^`]+`)\s*\)|([\w.]+|`[^`]+`))\s*")
"""A column right of a bar, which is a factor whatever it holds."""


@dataclass(frozen=True)
class Bar:
    """``effects``: a formula of their design matrix; ``factors``: columns whose combinations are the groups."""

    effects: str
    factors: tuple[str, ...]

    def __str__(self) -> str:
        return f"({self.effects} | {':'.join(self.factors)})"


@dataclass(frozen=True)
class Response:
    """``text`` as it was written; ``trials`` is the n of p(k, n), a column or a number, and then ``text`` is k."""

    text: str
    trials: str | None = None


@dataclass(frozen=True)
class Formula:
    """``fixed`` is a right side, without bars and offsets."""

    text: str
    response: Response
    fixed: str
    bars: tuple[Bar, ...]
    offsets: tuple[str, ...]


def parse(text: str) -> Formula:
    """Raises: ConfigError, which shows where."""
    text = normalised(text)
    check_syntax(text)
    tokens = scan(text)
    tilde = next((k for k, token in enumerate(tokens) if token.kind == "TILDE"), None)
    if not tilde:
        raise wrong(text, 0, NO_RESPONSE)
    response = _response(text, tokens[:tilde])
    bars: list[Bar] = []
    offsets: list[str] = []
    kept = text[tokens[tilde].end :]
    cuts: list[tuple[int, int]] = []
    for opening, closing in _groups(tokens):
        pipes = [k for k in range(opening, closing) if tokens[k].kind == "PIPE"]
        named = opening > 0 and tokens[opening - 1].kind == "IDENTIFIER"
        inside = text[tokens[opening].end : tokens[closing].start]
        first = opening - 1 if named else opening
        if named and tokens[first].text == "offset":
            offsets.append(inside.strip())
        elif pipes and not named:
            bars += _bars(text, tokens, opening, closing, pipes)
        else:
            continue
        before, after = tokens[first - 1], tokens[closing + 1]
        if before.kind not in ("TILDE", "PLUS") or after.kind not in ("PLUS", "MINUS", "EOF"):
            raise wrong(text, tokens[first].start, "this can only be added, by +, to what else is in the formula")
        start = before.start if before.kind == "PLUS" else tokens[first].start
        end = after.end if before.kind == "TILDE" and after.kind == "PLUS" else tokens[closing].end
        cuts.append((start, end))
    loose = [token for token in tokens if token.kind == "PIPE" and not any(s <= token.start < e for s, e in cuts)]
    if loose:
        raise wrong(text, loose[0].start, LOOSE_BAR)
    for start, end in reversed(cuts):
        offset = tokens[tilde].end
        kept = kept[: start - offset] + kept[end - offset :]
    return Formula(text, response, " ".join(kept.split()) or "1", tuple(bars), tuple(offsets))


def parse_fixed(text: str, option: str) -> str:
    """The right side of ``~ x``, for what has fixed effects alone. Raises: ConfigError."""
    text = normalised(text).removeprefix("~").strip()
    check_syntax(text, option)
    for token in scan(text, option):
        if token.kind in ("PIPE", "TILDE"):
            raise wrong(text, token.start, "this part of a model has fixed effects alone, as in '~ x'", option)
        if token.text == "offset":
            raise wrong(text, token.start, "this part of a model has no offset", option)
    return text


def normalised(text: str) -> str:
    """R's words for what the library calls otherwise, in the library's."""
    return re.sub(r"\b(?:as\.)?factor\(", "C(", " ".join(text.replace("^", "**").split()))


def _groups(tokens: list[Token]) -> list[tuple[int, int]]:
    """The outermost pairs of parentheses right of the tilde; the grammar has seen that each is closed."""
    found, depth, opening, right = [], 0, 0, False
    for k, token in enumerate(tokens):
        right = right or token.kind == "TILDE"
        if token.kind == "LEFT_PAREN":
            opening = opening if depth else k
            depth += 1
        elif token.kind == "RIGHT_PAREN":
            depth -= 1
            if not depth and right:
                found.append((opening, k))
    return found


def _response(text: str, tokens: list[Token]) -> Response:
    written = text[: tokens[-1].end].strip()
    if tokens[0].text == "cbind":
        raise wrong(text, 0, "binomial counts are written p(k, n) here: successes, then trials")
    if tokens[0].text in ("p", "prop", "proportion") and len(tokens) > 1 and tokens[1].kind == "LEFT_PAREN":
        commas = [token.start for token in tokens if token.kind == "COMMA"]
        if len(commas) != 1:
            raise wrong(text, 0, "binomial counts are p(k, n): successes, then trials")
        successes, trials = text[tokens[1].end : commas[0]], text[commas[0] + 1 : tokens[-1].start]
        return Response(plain(successes), plain(trials))
    slash = next((token for token in tokens if token.kind == "SLASH"), None)
    if slash is not None and len(tokens) == 3:
        raise wrong(text, slash.start, "binomial counts are written p(k, n) here: successes, then trials")
    return Response(plain(written))


def _bars(text: str, tokens: list[Token], opening: int, closing: int, pipes: list[int]) -> list[Bar]:
    first, last = tokens[pipes[0]], tokens[pipes[-1]]
    double = len(pipes) == 2 and first.end == last.start
    if len(pipes) > 1 and not double:
        raise wrong(text, last.start, "one bar a group of effects: (effects | factor)")
    effects = text[tokens[opening].end : first.start].strip()
    blocks = _uncorrelated(effects) if double else [effects]
    nested: list[tuple[str, ...]] = []
    place = last.end
    for part in text[last.end : tokens[closing].start].split("/"):
        crossed = [FACTOR.fullmatch(name) for name in part.split(":")]
        if not all(crossed):
            message = "right of a bar stand columns: (1 | a), (1 | a:b), (1 | a/b); write (1 | a) + (1 | b) for both"
            raise wrong(text, place + len(part) - len(part.lstrip()), message)
        names = tuple(plain(match[1] or match[2]) for match in crossed if match is not None)
        nested.append((*(nested[-1] if nested else ()), *names))
        place += len(part) + 1
    return [Bar(block, factors) for factors in nested for block in blocks]


def _uncorrelated(effects: str) -> list[str]:
    """Each effect by itself: what (effects || factor) stands for."""
    from formulae.model_description import model_description
    from formulae.terms import Intercept

    terms = model_description(effects).common_terms
    names = [None if isinstance(term, Intercept) else term.name for term in terms]
    return ["1" if name is None else f"0 + {name}" for name in names]


def plain(name: str) -> str:
    """A column's name without the backquotes."""
    return name.strip().strip("`")
