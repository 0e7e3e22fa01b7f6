"""Numbers that have run to an edge, drawn in again: on the plateau out there no slope says that the loss falls inwards.

Where a variance was zero at the fit it need not stay so as another number is held elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .constrained import Landscape, Spot

INWARDS = (1.0, 2.5, 4.0, 6.0, 8.5, 12.0, 16.0)
"""How far a number is drawn in, unconstrained units; each is a loss."""

MOST = 4
"""Numbers that are tried one by one, at each place; more would take too long."""

FALL = 1e-9
"""Of the loss's size, what a place must be lower by to be begun from."""


def drawn_in(landscape: Landscape, spot: Spot, own: Tensor) -> Tensor | None:
    """A lower place than ``spot``, with a number of bounded support moved inwards from an edge; None without one.

    Args: own: numbers that are held, and stay. Shapes: (d,) → (d,).
    """
    flat = spot.flat
    running = (spot.held & ~own & ~landscape.unread & (flat.abs() > 1.0)).nonzero()[:, 0].tolist()
    best, lowest_loss = flat, spot.loss - FALL * spot.point.size
    for number in running[:MOST]:
        base = best
        for distance in INWARDS:
            moved = base.clone()
            moved[number] -= torch.sign(base[number]) * distance
            loss = landscape.loss(moved)
            if loss < lowest_loss:
                best, lowest_loss = moved, loss
    return None if best is flat else best
