"""The command line: one file a command, gathered here. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from ..version import __version__
from . import (
    bootstrap,
    check,
    compare,
    diagnose,
    export,
    fit,
    init,
    optimizers,
    plot,
    predict,
    profile,
    report,
    resume,
    schema,
    simulate,
)
from .answer import alone

NO_SUCH_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP)
"""What the system says of a path that it does not take or open, whatever the path is for."""

app = typer.Typer(
    name="hofit",
    help="Fit Pyro models: MAP with optimizer mixes from YAML, checkpoints, and a verdict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hofit {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command("fit")(alone(fit.command))
app.command("init")(alone(init.command))
app.command("resume")(alone(resume.command))
app.command("check")(alone(check.command))
app.command("optimizers")(alone(optimizers.command))
app.command("report")(alone(report.command))
app.command("plot")(alone(plot.command))
app.command("compare")(alone(compare.command))
app.command("diagnose")(alone(diagnose.command))
app.command("profile")(alone(profile.command))
app.command("bootstrap")(alone(bootstrap.command))
app.command("export")(alone(export.command))
app.command("schema")(alone(schema.command))
app.command("predict")(alone(predict.command, always=True))
app.command("simulate")(alone(simulate.command, always=True))


def main() -> None:
    """Run the command line; errors of the user's become one clear message and the contract's exit code.

    Of several processes that torchrun has started the first runs the command, and the others answer it until it ends.
    """
    # Before torch is imported. Threads that wait for each other by spinning make a fit on a busy machine many times
    # slower than on one thread; who wants that can say so in the environment.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        _run()
    from ..run.shards import PROCESSES, piece_of_fit
    from ..sharding.ranks import serve

    if PROCESSES.world.rank > 0:
        sys.exit(serve(piece_of_fit))
    code = 1
    try:
        _run()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        raise
    finally:
        PROCESSES.end(code)


def _run() -> NoReturn:
    from ..errors import HofitError, printable

    try:
        app()
        sys.exit(0)
    except HofitError as error:
        print(f"hofit: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("hofit: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.filename is None or error.errno not in NO_SUCH_PATH:
            raise
        print(f"hofit: {printable(str(error.filename)):.60}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
