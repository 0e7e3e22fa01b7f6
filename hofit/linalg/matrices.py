"""The matrices that fields are made of: units, Laplacians of graphs, random walks. Each is kept."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .kept import KEPT, content_of, integers_of
from .symmetric import SparseSymmetric


def identity(size: int) -> SparseSymmetric:
    """The unit matrix, in torch's default dtype and on its default device."""
    return _identity(size, torch.get_default_dtype(), torch.get_default_device())


def laplacian(edges: Tensor, size: int, weights: Tensor | None = None) -> SparseSymmetric:
    """D − W of an undirected graph: xᵀ A x = Σ w (xᵢ − xⱼ)² over the edges; its null space is what is constant on parts
    that are connected.

    Shapes: edges (2, k), each given once; weights (k,), constants, 1 where there are none.
    """
    if weights is not None and weights.requires_grad:
        raise ValueError("the weights of a Laplacian are constants: take a sum of Laplacians, each times a parameter")
    dtype = torch.get_default_dtype() if weights is None else weights.dtype
    first, second = (content_of(one) for one in edges)
    return _laplacian(size, first, second, None if weights is None else content_of(weights), dtype, edges.device)


def random_walk(size: int, order: int = 1) -> SparseSymmetric:
    """DᵀD with D differences of some order: xᵀ A x = Σ (Δ^order x)²; its null space are the polynomials below that."""
    return _random_walk(size, order, torch.get_default_dtype(), torch.get_default_device())


@lru_cache(maxsize=KEPT)
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> SparseSymmetric:
    each = torch.arange(size, device="cpu")
    return SparseSymmetric(torch.stack([each, each]), torch.ones(size, dtype=dtype, device=device), size)


@lru_cache(maxsize=KEPT)
def _laplacian(
    size: int, first: bytes, second: bytes, weights: bytes | None, dtype: torch.dtype, device: torch.device
) -> SparseSymmetric:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    with torch.device("cpu"):
        edges = torch.stack([integers_of(first), integers_of(second)])
        if bool((edges[0] == edges[1]).any()):
            raise ValueError("an edge from a place to itself")
        weight = torch.ones(edges.shape[1], dtype=dtype)
        if weights is not None:
            weight = torch.frombuffer(bytearray(weights), dtype=torch.float64).to(dtype)
        degree = torch.zeros(size, dtype=dtype).index_add(0, edges[0], weight).index_add(0, edges[1], weight)
        each = torch.arange(size)
        graph = csr_matrix((weight.numpy(), (edges[0].numpy(), edges[1].numpy())), shape=(size, size))
        count, part = connected_components(graph, directed=False)
        null = torch.nn.functional.one_hot(torch.from_numpy(part).long(), count).to(dtype)
        places = torch.cat([edges, torch.stack([each, each])], 1)
    return SparseSymmetric(places, torch.cat([-weight, degree]).to(device), size, null)


@lru_cache(maxsize=KEPT)
def _random_walk(size: int, order: int, dtype: torch.dtype, device: torch.device) -> SparseSymmetric:
    if not 0 < order < size:
        raise ValueError(f"a random walk of order {order} over {size} places")
    with torch.device("cpu"):
        stencil = torch.ones(1, dtype=dtype)
        for _ in range(order):
            stencil = torch.nn.functional.pad(stencil, (0, 1)) - torch.nn.functional.pad(stencil, (1, 0))
        start = torch.arange(size - order)
        places, values = [], []
        for i in range(order + 1):
            for j in range(i + 1):
                places.append(torch.stack([start + i, start + j]))
                values.append((stencil[i] * stencil[j]).expand(len(start)))
        rows, columns = torch.cat(places, 1)
        code, number = (rows * size + columns).unique(return_inverse=True)
        total = torch.zeros(len(code), dtype=dtype).index_add(0, number, torch.cat(values))
        time = torch.linspace(-1.0, 1.0, size, dtype=dtype)
        null = torch.stack([time**power for power in range(order)], 1)
    found = SparseSymmetric(torch.stack([code // size, code % size]), total.to(device), size, null)
    return found.hear(order, _log_determinant(size, order))


def _log_determinant(size: int, order: int) -> float:
    """|DᵀD|*, of which a factorisation loses all digits where the walk is long.

    Without the first ``order`` columns D is triangular with ones on its diagonal, so |DᵀD|* = det(NᵀN) where N are the
    polynomials (t over k), which are (size / 2)ᵏ / k! sᵏ + … in s from −1 to 1.
    """
    time = torch.linspace(-1.0, 1.0, size, dtype=torch.float64, device="cpu")
    triangle = torch.linalg.qr(torch.stack([time**power for power in range(order)], 1))[1]
    logarithms = [k * math.log((size - 1) / 2) - math.lgamma(k + 1) for k in range(order)]
    return 2.0 * (sum(logarithms) + float(triangle.diagonal().abs().log().sum()))
