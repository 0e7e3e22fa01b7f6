"""The second derivatives of a loss, in the structure that they have.

``structure`` finds it, keeps it from point to point and proves it by ``proof``; ``layout`` says which parameters are
rows and which are their border, ``lifting`` and ``assembly`` make the numbers from one watched trace, ``probed`` from
Hessian-vector products. ``joint`` is a loss with its Hessian as functions that can be differentiated again, and
``rows`` are the blocks of parameters that are rows of their plates. A structure's arithmetic belongs to linear, what a
step makes of a Hessian to optim.

May import: coordinates, point, linear, errors, internals.
"""
