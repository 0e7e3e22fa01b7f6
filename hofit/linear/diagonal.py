"""A diagonal matrix: every number on its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .operator import Factor, Operator, Spectrum
from .spectrum import unknown_spectrum


class Diagonal(Operator):
    """diag(h). Shape of ``entries``: (d,)."""

    structure = "diagonal"

    def __init__(self, entries: Tensor) -> None:
        self.entries = entries
        self.size = entries.numel()
        self.like = entries.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        return self.entries * vectors

    def diagonal(self) -> Tensor:
        return self.entries

    def scaled(self, scale: Tensor) -> Diagonal:
        return Diagonal(scale * self.entries * scale)

    def held(self, places: Tensor) -> Diagonal:
        return Diagonal(torch.where(places, 1.0, self.entries))

    def largest(self) -> float:
        return float(self.entries.abs().max()) if self.size else 0.0

    def norm_bound(self) -> float:
        return self.largest()

    def factor(self, shift: float = 0.0) -> Factor:
        return _DiagonalFactor(self.entries + shift)

    def lowest(self, count: int = 1) -> Spectrum:
        if not bool(torch.isfinite(self.entries).all()):
            return unknown_spectrum(self.entries, min(count, self.size))
        values, places = torch.topk(self.entries, min(count, self.size), largest=False)
        vectors = self.entries.new_zeros(self.size, len(places))
        vectors[places, torch.arange(len(places))] = 1.0
        return Spectrum(values, vectors)


class _DiagonalFactor(Factor):
    def __init__(self, entries: Tensor) -> None:
        self._entries = entries
        self.positive = bool(((entries > 0) & (entries < torch.inf)).all())
        if not self.positive and bool((entries <= 0).any()):
            self.direction = torch.zeros_like(entries)
            self.direction[entries.nan_to_num(nan=torch.inf).argmin()] = 1.0

    def solve(self, vectors: Tensor) -> Tensor:
        return vectors / self._entries

    def log_determinant(self) -> Tensor:
        return self._entries.log().sum()

    def inverse_diagonal(self) -> Tensor:
        return self._entries.reciprocal()

    def draw(self, noise: Tensor) -> Tensor:
        return noise * self._entries.rsqrt()
