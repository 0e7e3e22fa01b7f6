"""Names that come from a run, as they may be shown: what steers a terminal or a reader's eye is written out."""

from __future__ import annotations

import unicodedata

LONGEST = 34
"""Characters of a name in a picture."""

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of control and format characters, lone surrogates, and separators of lines."""

JOINERS = {"\u200c", "\u200d"}
"""Format characters that scripts need."""


def visible(text: str, keep: str = "") -> str:
    """``text`` with every hidden character but those of ``keep`` written as its escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(sign) if sign not in keep else sign for sign in text)


def _shown(sign: str) -> str:
    if unicodedata.category(sign) in HIDDEN and sign not in JOINERS:
        return sign.encode("unicode_escape").decode()
    return sign


def shortened(text: str, longest: int = LONGEST) -> str:
    """A visible name of at most ``longest`` characters, cut in the middle: both ends tell names apart."""
    shown = visible(text)
    if len(shown) <= longest:
        return shown
    head = (longest - 1) // 2
    return f"{shown[:head]}…{shown[-(longest - 1 - head) :]}"
