"""How a fit can end: name, whether that is convergence, exit code, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """One way for a fit to end. ``remedy`` is a sentence for the user, printed unless the fit simply converged."""

    name: str
    converged: bool
    exit_code: int
    remedy: str


STATUSES: dict[str, Status] = {
    status.name: status
    for status in (
        Status("converged", True, 0, ""),
        Status(
            "converged_on_boundary",
            True,
            0,
            "A value lies at the edge of its support: fix it there, give it a prior that keeps it inside, "
            "or use objective map_unconstrained.",
        ),
        Status(
            "flat_direction",
            True,
            0,
            "The loss does not change along a direction: fix one of the parameters named, or give them priors.",
        ),
        Status(
            "no_progress",
            False,
            3,
            "The last steps changed the loss by no more than stop.relative_loss, but the point is no proven minimum: "
            "try another optimizer (newton for few parameters or rows in plates), a decaying lr, another start, or, "
            "where the loss still falls slowly, a smaller stop.relative_loss.",
        ),
        Status(
            "max_iterations",
            False,
            3,
            "Go on with `hofit resume RUN_DIR -s stop.max_iterations=N`, or use a faster optimizer or a larger lr; "
            "where newton goes to and fro between coupled parameters, give each an entry of its own and "
            "`order: alternating`.",
        ),
        Status("time", False, 3, "Go on with `hofit resume RUN_DIR -s stop.max_seconds=N`."),
        Status(
            "non_finite",
            False,
            4,
            "Use a smaller lr or a trust_radius, start nearer (init.values), or bound the parameters named.",
        ),
        Status(
            "unbounded",
            False,
            4,
            "The loss falls without end: fix the parameters named, or give them priors that keep them inside. "
            "(The joint mode of a hierarchical model with free scales does this.)",
        ),
        Status("saddle", False, 4, "The gradient is zero but the curvature is not positive: start elsewhere."),
        Status(
            "model_error",
            False,
            4,
            "Mend the model (it must be the same function at every iteration), or the claim that its Hessian refutes.",
        ),
        Status("interrupted", False, 130, "Go on with `hofit resume RUN_DIR`."),
    )
}

TERMINATED_EXIT_CODE = 143
"""What an ``interrupted`` fit leaves with after SIGTERM (128 + 15); after SIGINT it is 130 (128 + 2)."""
