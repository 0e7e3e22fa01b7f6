"""How a fit can end: the word for it, whether that is convergence, exit code, and what to do about it."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """One way for a fit to end.

    ``word`` is what users see; ``remedy`` a sentence for them, printed unless the fit simply converged.
    """

    def __init__(self, word: str, converged: bool, exit_code: int, remedy: str) -> None:
        self.word, self.converged, self.exit_code, self.remedy = word, converged, exit_code, remedy

    CONVERGED = "converged", True, 0, ""
    CONVERGED_ON_BOUNDARY = (
        "converged_on_boundary",
        True,
        0,
        "A value runs to the edge of its support, or to infinity: fix it at its limit, or give it a prior that keeps "
        "it away from there; from an edge, objective map_unconstrained does so too.",
    )
    FLAT_DIRECTION = (
        "flat_direction",
        True,
        0,
        "The loss does not change along a direction: fix one of the parameters named, or give them priors.",
    )
    NO_PROGRESS = (
        "no_progress",
        False,
        3,
        "The last steps changed the loss by no more than stop.relative_loss, but the point is no proven minimum: "
        "try another optimizer (newton for few parameters or rows in plates), a decaying lr, another start, or, "
        "where the loss still falls slowly, a smaller stop.relative_loss.",
    )
    MAX_ITERATIONS = (
        "max_iterations",
        False,
        3,
        "Go on with `hofit resume RUN_DIR -s stop.max_iterations=N`, or use a faster optimizer or a larger lr; "
        "where newton goes to and fro between coupled parameters, give each an entry of its own and "
        "`order: alternating`.",
    )
    TIME = "time", False, 3, "Go on with `hofit resume RUN_DIR -s stop.max_seconds=N`."
    NON_FINITE = (
        "non_finite",
        False,
        4,
        "Use a smaller lr or a trust_radius, start nearer (init.values), or bound the parameters named.",
    )
    UNBOUNDED = (
        "unbounded",
        False,
        4,
        "The loss falls without end: fix the parameters named, or give them priors that keep them inside. "
        "(The joint mode of a hierarchical model with free scales does this.)",
    )
    SADDLE = "saddle", False, 4, "The gradient is zero but the curvature is not positive: start elsewhere."
    MODEL_ERROR = (
        "model_error",
        False,
        4,
        "Mend the model (it must be the same function at every iteration), or the claim that its Hessian refutes.",
    )
    INTERRUPTED = "interrupted", False, 130, "Go on with `hofit resume RUN_DIR`."


COMPLETE_AS_TOLD = (
    "nothing, if these iterations are what was meant: the run is complete as told. On minibatches the loss is an "
    "estimate and no gradient comes to rest, so that nothing is called converged. To bring it nearer, go on with "
    "`hofit resume RUN_DIR -s stop.max_iterations=N`, or let lr fall (schedule: {name: exponential, gamma: 0.999}); "
    "where the data fit into memory, a fit without subsample_size can be proved to have converged."
)
"""The remedy of a fit on minibatches that has run all its iterations."""

SIGNALLED = 128
"""What a shell adds to a signal's number: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
