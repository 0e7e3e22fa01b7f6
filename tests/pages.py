"""The README and the pages of docs/ as a reader follows them: blocks, from top to bottom, in one directory.

What a block is, is said by the language of its fence, and a fence of another language is a mistake:

- none, or ``sh``: a line each, ``hofit …``, which is run, and ends well but where a comment has another ``exit code``;
  ``make TARGET``, which must be there but takes too long; ``pip install …``, whose extras must be there;
- ``yaml``: a config, written to a file where its first line is ``# name.yaml``, else held against the schema;
- ``python``: a file where its first line is ``# name.py``, else run, in one scope a page;
- ``file``: the name of a file of the checkout, which the site shows;
- ``text``: what the block before has printed, or some lines of it;
- ``r``, ``stan``, ``cpp``: of another program, and ``diagram``, a drawing: not run.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVERS = ("tensorboard",)
"""Commands of other programs that never end."""

NOT_RUN = ("r", "stan", "cpp", "diagram")

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
EXIT_CODE = re.compile(r"#.*\bexit code (\d+)")
PICTURE = re.compile(r"!\[[^\]]+\]\((?:docs/|\.\./)?pictures/([^)]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Those of a page, in order. Raises: ValueError for a fence that is not understood, for it would not be tested."""
    text = page.read_text(encoding="utf-8")
    found = [Block(one[1], one[2], text.count("\n", 0, one.start()) + 1) for one in BLOCK.finditer(text)]
    fences = sum(line.lstrip().startswith("```") for line in text.splitlines())
    if fences != 2 * len(found):
        raise ValueError(f"{page.name}: {fences} lines begin with a fence, and {len(found)} blocks are understood")
    return found


def pictures(page: Path) -> list[str]:
    """The files of docs/pictures that a page shows."""
    return PICTURE.findall(page.read_text(encoding="utf-8"))


@dataclass
class Reader:
    """Follows a page in the current directory; what is printed is kept until the next block that runs."""

    scope: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    def follow(self, block: Block) -> None:
        """Do what a block says. Raises: AssertionError where it is not true."""
        named = NAMED.match(block.text)
        if named:
            Path(named[1]).write_text(block.text, encoding="utf-8")
        elif block.language in ("", "sh"):
            self._commands(block.text)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, f"line {block.line}", "exec"), self.scope)
            self.printed = out.getvalue()
        elif block.language == "file":
            assert (ROOT / block.text.strip()).is_file(), f"{block.text.strip()} is not there"
        elif block.language == "yaml":
            hold_to_the_schema(block.text)
        elif block.language == "text":
            missing = not_printed(block.text, self.printed)
            assert not missing, f"not in what was printed: {missing}\n{self.printed}"
        else:
            assert block.language in NOT_RUN, f"a block in {block.language!r} would not be tested"

    def _commands(self, text: str) -> None:
        self.printed = ""
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            if words[0] == "hofit":
                code, out = run(words)
                self.printed += out
                wanted = EXIT_CODE.search(line)
                assert code == (int(wanted[1]) if wanted else 0), f"{line}: exit {code}\n{out}"
            elif words[0] in SERVERS:
                continue
            elif words[0] == "make":
                assert set(words[1:]) <= targets(), f"{line}: the Makefile has no such target"
            else:
                assert words[:2] == ["pip", "install"], f"{line}: such a command would not be tested"
                assert set(re.findall(r"\[(.*?)\]", line)) <= extras(), f"{line}: no such extra"


def run(words: list[str]) -> tuple[object, str]:
    """The exit code of a command that runs in this process, and what it printed."""
    from hofit.cli.app import main

    code: object = 0
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    return code, out.getvalue()


def targets() -> set[str]:
    """What the Makefile makes."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):", text, re.MULTILINE))


def extras() -> set[str]:
    """What pyproject.toml lets one ask for in brackets."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (section,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", text, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))


def hold_to_the_schema(text: str) -> None:
    """A config, or some keys of one. Raises: jsonschema's ValidationError."""
    import jsonschema

    from hofit.config.json_schema import config_schema

    some = yaml.safe_load(text)
    jsonschema.validate({"optimizers": [{"params": "*", "optimizer": "adam"}], **some}, config_schema())


def not_printed(text: str, printed: str) -> list[str]:
    """The lines of a text that do not stand in what was printed, in this order.

    Blanks do not count, nor do times; numbers may differ by two in a hundred or in their last digit, as between
    machines, those with an exponent by as much as they like, for they are what rounding left. A lone … leaves lines
    out, one at the end of a line the rest of it.
    """
    rest = iter(printed.splitlines())
    wanted = [line for line in text.splitlines() if line.strip() not in ("", "…")]
    return [line for line in wanted if not any(_alike(line, other) for other in rest)]


def _alike(line: str, other: str) -> bool:
    ours, theirs = (re.sub(r"[\d.]+ s\b", "", one).split() for one in (line, other))
    if len(ours) > 1 and ours[-1] == "…":
        ours, theirs = ours[:-1], theirs[: len(ours) - 1]
    return len(ours) == len(theirs) and all(map(_same, ours, theirs))


def _same(word: str, other: str) -> bool:
    if word == other:
        return True
    ours, theirs = _number(word), _number(other)
    if ours is None or theirs is None:
        return False
    last_digit = 10.0 ** -len(word.strip(",;:)").partition(".")[2])
    return "e" in word or abs(ours - theirs) <= max(1.01 * last_digit, 0.02 * abs(ours))


def _number(word: str) -> float | None:
    try:
        return float(word.strip("(),;:"))
    except ValueError:
        return None
