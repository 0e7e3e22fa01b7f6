"""What can be wrong with a user's input, as exceptions; and the one that ends a fit.

    HofitError                 exit 2
    ├── ConfigError            the YAML file or a --set
    ├── DataError              the data file, a column, an argument
    ├── ModelError             the model module, or an exception inside it
    │   └── StartError         the model cannot be evaluated where the fit starts   exit 4
    ├── OptionError            an optimizer's option
    ├── RunDirectoryError      a directory that is taken or in use
    ├── DiskError              a disk that fails in the middle of a fit, resumable         exit 3
    ├── PieceLost              a process of several that does not answer, resumable       exit 3
    └── CheckpointError        damaged, foreign, of another model or data           exit 5

Numerical trouble is not here: it is a status (see status.py).

    StepImpossible             status model_error; before the first step, where ``hofit check`` meets it, exit 2
    ├── RowsInteract           optim/newton.py
    ├── ForeignFault           optim/foreign.py
    └── StructureRefuted       curvature/structure.py

is raised where an optimizer finds, in the middle of a fit, that it cannot step on such a model.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, sets its title or turns its text around; line ends and tabs do not."""


def printable(text: str) -> str:
    """The text without what a terminal would obey: names and remarks may be a stranger's."""
    return _CONTROLS.sub("\ufffd", text)


class HofitError(Exception):
    """Wrong input, found at the edge. ``exit_code`` is what the command line leaves with."""

    exit_code = 2


class ConfigError(HofitError):
    """One or more mistakes in a config; ``mistakes`` holds a line for each."""

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class DataError(HofitError):
    """The data file or an argument of the model is not what the config says.

    ``key`` is the place in the config that led here, so that its line can be named.
    """

    def __init__(self, message: str, key: tuple[str, ...] = ("data",)) -> None:
        self.key = key
        super().__init__(message)


class ModelError(HofitError):
    """The model module cannot be used, or the model raised."""


class StartError(ModelError):
    """The model has no finite log density at the start point."""

    exit_code = 4


class OptionError(HofitError, ValueError):
    """An optimizer's option is unknown or out of range."""


class RunDirectoryError(HofitError):
    """A run directory holds a run already, is in use, or holds none."""


class DiskError(HofitError):
    """The disk took no more after the first step: full, failing, or read-only by now."""

    exit_code = 3


class PieceLost(HofitError):
    """A process that has a piece of the data does not answer any more."""

    exit_code = 3


class CheckpointError(HofitError):
    """A checkpoint cannot be trusted or does not fit the model and data at hand."""

    exit_code = 5


class StepImpossible(Exception):
    """An optimizer cannot step on this model, wherever it stands; ``fault`` is what the user's own code raised."""

    def __init__(self, message: str, fault: Exception | None = None) -> None:
        self.fault = fault
        super().__init__(message)


@contextmanager
def refusals_told(what: object) -> Iterator[None]:
    """Inside, a path or option is named where the disk refuses to write. Raises: RunDirectoryError."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"{what} cannot be written: {error.strerror or error}") from error
