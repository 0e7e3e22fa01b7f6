"""The second derivatives of a loss, in the structure that they have.

``structure`` gives them at point after point and proves them by ``proof``. A ``layout`` says which parameters are rows
and which are their border, and ``choice`` which one is taken. The numbers come from one watched trace, by ``lifting``,
``placement`` and ``assembly``, or, ``probed``, from Hessian-vector products, as few as a ``colouring`` says.
``batching`` makes few operations of a loss that is computed by many. ``expansion`` is a loss with its Hessian as
functions that can be differentiated again, and ``rows`` are the blocks of parameters that are rows of their plates.
A structure's arithmetic belongs to linear, what a step makes of a Hessian to optim.

May import: coordinates, point, linear, errors, internals.
"""
