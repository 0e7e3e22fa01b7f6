"""Symmetric matrices with structure: what can be asked of a Hessian once its numbers are there.

A file a structure (diagonal, block_diagonal, arrowhead with its couplings, dense, sparse), each an ``Operator`` with a
``Factor``; and what is done to any of them: spectrum, log_determinant. ``matrix_free`` and ``krylov`` are for matrices
of which only products are known. What enters is tensors and flat places; no parameter has a name here.

A sparse matrix has a pattern (sparsity), analysed once: ordering, elimination_tree, supernodes, and elimination, which
lays out addresses. With numbers, multifrontal sweeps over these; updates leads from a front to those above it. Where no
factor fits, it is stochastic: coloured sweeps in the place of a factor, and lanczos for functions of it.

May import: nothing of hofit.
"""
