"""Trust-region subproblems: min gᵀp + ½ pᵀHp inside a radius, a file an algorithm.

What enters is a way to solve that problem, on a structured Hessian (`exact.py`), on many small rows at once
(`by_rows.py`), or by products alone (`truncated.py`); no point, no parameter, no loss. May import: linear.
"""
