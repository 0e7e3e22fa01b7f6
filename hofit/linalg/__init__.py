"""Sparse symmetric matrices that a model builds of its parameters, and their log determinant.

``tau * laplacian(edges, n)``, ``tau * (kappa * identity(n) + laplacian(edges, n))``, ``SparseSymmetric.of(constant)``,
``SparseSymmetric(indices, values, n)``: what is constant is analysed once and kept, so that a model may write them at
every trace. torch's own sparse tensors lose the second derivative of their values; these keep it.

An intrinsic matrix has a null space and knows it: the constants that a graph's Laplacian sends to zero, the polynomials
of a random walk. Its determinant is the product of the eigenvalues that are not zero. With N a basis of the null space
and I as many rows as it has columns, |Q|* = det(Q without the rows and columns I) · det(NᵀN) / det(N_I)².

A file an idea: the sums (symmetric), what they are of (basis), their determinants (pencil, determinant), what they send
to zero (null_space), the matrices there are (matrices), and patterns that are known again (kept).

May import: linear. Imported by models: nothing here knows a parameter, a config or a fit.
Source: Rue & Held (2005), "Gaussian Markov Random Fields", chapters 2 and 3.
"""

from .matrices import identity as identity
from .matrices import laplacian as laplacian
from .matrices import random_walk as random_walk
from .symmetric import SparseSymmetric as SparseSymmetric
from .symmetric import log_determinant as log_determinant

__all__ = ["SparseSymmetric", "identity", "laplacian", "log_determinant", "random_walk"]
