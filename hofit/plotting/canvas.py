"""Where pictures are drawn: figures without a display or a global state, in light or dark, as PNG or SVG."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import HofitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HINT = "pictures need matplotlib: pip install 'hofit[plot]'"

WIDTH = 8.4
"""Inches; a page shows it unscaled beside its margins."""

DPI = 150
NOTE_COLUMNS = 105

Format: TypeAlias = Literal["png", "svg"]


@dataclass(frozen=True)
class Theme:
    """The colours of a picture. ``series`` are told apart by the colour-blind too (Okabe & Ito 2008)."""

    ink: str
    muted: str
    grid: str
    ground: str
    series: tuple[str, ...]

    def colours(self) -> tuple[str, ...]:
        return (self.ink, self.muted, self.grid, self.ground, *self.series)


LIGHT = Theme(
    "#1f2328", "#59636e", "#e4e7eb", "#ffffff", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
)
DARK = Theme(
    "#e6e9ed", "#9aa4af", "#30363d", "#161b22", ("#56b4e9", "#ff8c42", "#3ecf9b", "#e7a3c8", "#f0e442", "#4a90d9")
)


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn: ``name`` is its file's, ``notes`` say what it leaves out."""

    name: str
    title: str
    description: str
    draw: Callable[[Theme], Figure]
    notes: Sequence[str] = ()


def is_available() -> bool:
    """Whether pictures can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def render(picture: Picture, *formats: Format) -> list[bytes]:
    """The picture as the bytes of files; the same run gives the same bytes. Raises: HofitError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise HofitError(HINT) from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")  # a name may have any sign: it is then an empty box
        matplotlib.rcdefaults()  # a user's own style may ask for LaTeX
        matplotlib.rcParams.update(_style(LIGHT))
        figure = picture.draw(LIGHT)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the panels have their places: to find them takes longer than to draw
        return [_saved(figure, format) for format in formats]


def _saved(figure: Figure, format: Format) -> bytes:
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    figure.savefig(file, format=format, dpi=DPI, metadata=metadata)
    return file.getvalue()


def darkened(svg: bytes) -> bytes:
    """The SVG of a picture in the colours for a dark page: those of the light one are nowhere else in it."""
    text = svg.decode()
    for light, dark in zip(LIGHT.colours(), DARK.colours(), strict=True):
        text = text.replace(light, dark.upper())  # upper case: what was replaced is not found again
    return text.encode()


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.muted,
        "axes.facecolor": theme.ground,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": theme.ground,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "svg.hashsalt": "hofit",
    }


def figure_of(height: float, title: str, notes: Sequence[str], theme: Theme) -> Figure:
    """An empty figure with a title above and notes below, which the panels make room for."""
    from matplotlib.figure import Figure

    lines = [line for note in notes for line in textwrap.wrap(note, NOTE_COLUMNS)]
    figure = Figure(figsize=(WIDTH, height + 0.6 + 0.16 * len(lines)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    if lines:
        figure.supxlabel(
            "\n".join(lines), x=0.012, ha="left", fontsize=8, color=theme.muted, linespacing=1.3, parse_math=False
        )
    return figure


def name_rows(axes: Axes, labels: Sequence[str], theme: Theme) -> None:
    """Labels at the rows 0, 1, … from the top, the numbers' grid alone behind them."""
    axes.set_yticks(range(len(labels)), labels, parse_math=False, color=theme.ink)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
