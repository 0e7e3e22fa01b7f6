"""A formula's text → tokens that know where they stand; and the library that scans it, which may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError

HINT = "a formula needs the library formulae: pip install 'hofit[formula]'"

NO_RESPONSE = "a formula has its response left of a ~, as in 'y ~ x + (1 | group)'"
LOOSE_BAR = "a bar stands in parentheses: (1 | group)"


@dataclass(frozen=True)
class Token:
    """``kind`` is the library's; ``start`` and ``end`` are places in the text."""

    kind: str
    text: str
    start: int
    end: int


def need_library() -> None:
    """Raises: ConfigError where it is not installed."""
    try:
        import formulae  # noqa: F401
    except ImportError as error:
        raise ConfigError(HINT) from error


def wrong(formula: str, place: int, message: str, option: str = "--formula") -> ConfigError:
    """An error that shows where."""
    return ConfigError(f"{option}: {message}\n  {formula}\n  {' ' * place}^")


def scan(formula: str, option: str = "--formula") -> list[Token]:
    """The tokens, and after them one of kind ``EOF``. ``||`` is two. Raises: ConfigError."""
    return [token for token, _ in _scanned(formula, option)]


def check_syntax(formula: str, option: str = "--formula") -> None:
    """Raises: ConfigError at the place where the library's grammar is left."""
    from formulae.parser import ParseError, Parser

    scanned = _scanned(formula, option)
    # A double bar is a bar to the grammar.
    kept = [
        (token, raw)
        for k, (token, raw) in enumerate(scanned)
        if k == 0 or not (token.kind == scanned[k - 1][0].kind == "PIPE" and token.start == scanned[k - 1][0].end)
    ]
    parser = Parser([raw for _, raw in kept])
    try:
        parser.parse()
        reason = None if parser.at_end() else "this does not belong here"
    except ParseError as error:
        unclosed = parser.at_end() and "')'" in str(error)
        reason = "a parenthesis is not closed" if unclosed else str(error)
        reason = "something is missing here" if parser.at_end() and not unclosed else reason
    place = kept[parser.current][0]
    if reason is not None:
        reason = {"PIPE": LOOSE_BAR, "TILDE": NO_RESPONSE}.get(place.kind, reason)
        raise wrong(formula, place.start, reason, option)


def _scanned(formula: str, option: str) -> list[tuple[Token, Any]]:
    """Each token with the library's own. A power may be written as R has it: ``^`` is ``**`` before this."""
    from formulae.scanner import ScanError, Scanner

    if not formula.strip():
        raise ConfigError(f"{option} is empty: write one such as 'y ~ x + (1 | group)'")
    scanner = Scanner(formula)
    spans: list[tuple[int, int]] = []
    add = scanner.add_token

    def add_token(kind: str, literal: Any = None) -> None:
        spans.append((scanner.start, scanner.current))
        add(kind, literal)

    scanner.add_token = add_token
    try:
        raw = scanner.scan(add_intercept=False)
    except IndexError as error:
        raise wrong(formula, scanner.start, "this backquote is not closed", option) from error
    except ScanError as error:
        second = formula.find("~", formula.find("~") + 1)
        place = second if "more than one" in str(error) else scanner.start
        raise wrong(formula, place, str(error), option) from error
    spans.append((len(formula), len(formula)))
    return [
        (Token(token.kind, formula[start:end], start, end), token)
        for token, (start, end) in zip(raw, spans, strict=True)
    ]
