"""Make the pictures that the README and docs/ show, by the commands that stand beside them: ``make pictures``.

A page that shows ``pictures/PAGE_NAME.svg`` is followed as a reader follows it, in a directory of its own, and what it
has made as ``pictures/NAME.svg`` is kept. The run on a terminal, which the README opens with, is recorded by rich.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

from rich.console import Console

from hofit.cli.app import main
from hofit.report.console import FitConsole
from tests.pages import PAGES, ROOT, Reader, blocks, pictures

PICTURES = ROOT / "docs" / "pictures"

TERMINAL = "terminal.svg"
COMMAND = "hofit fit --config sleep.yaml"
COLUMNS = 100


def follow(page: Path) -> None:
    """Keep what a page's own commands draw, and on the README's what its fit prints."""
    reader = Reader()
    for block in blocks(page):
        reader.follow(block)
    for name in pictures(page):
        if name == TERMINAL:
            shutil.rmtree("runs")
            record()
        else:
            shutil.copy(Path("pictures", name.removeprefix(f"{page.stem}_")), PICTURES / name)


def record() -> None:
    """A fit as a terminal shows it."""
    consoles: list[Console] = []

    def recording(self: FitConsole) -> None:
        Console.__init__(
            self, record=True, width=COLUMNS, force_terminal=True, file=io.StringIO(), highlight=False, markup=False
        )
        self._lost = False
        consoles.append(self)

    with mock.patch.object(FitConsole, "__init__", recording), mock.patch.object(sys, "argv", COMMAND.split()):
        try:
            main()
        except SystemExit as leaving:
            assert leaving.code in (0, None)
    (shown,) = [console for console in consoles if console.export_text(clear=False)]
    shown.save_svg(str(PICTURES / TERMINAL), title=COMMAND)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for page in PAGES:
        if pictures(page) and (not wanted or page.stem in wanted):
            with tempfile.TemporaryDirectory() as place:
                for folder in ("models", "configs"):
                    Path(place, folder).symlink_to(ROOT / folder)
                os.chdir(place)
                follow(page)
                os.chdir(ROOT)
                print(page.relative_to(ROOT), *pictures(page))
