"""Fits held against each other: which are the same mode, which is best, and what models say of the same data.

What is compared are outcomes: what a run directory holds, or what a fit has returned. No model is traced and nothing is
fitted here; how the fits come about is the business of ``run``.

May import: ``report``, ``record``, ``config``, ``errors``.
"""
