"""From the start to the end of a fit: the loop over points, where it stands, and what comes out of it.

The loop knows no optimizer and no objective by name: it asks one for the next point and the other for the loss there.
What must be said or kept at every iteration enters here; files, screens and signals do not: they watch (see
`loop.Observer`).

May import: uncertainty, verdict, objective, optim, model, curvature, point, record, internals, status, errors.
"""
