"""Whether a point is a minimum, and what it is else.

One question a file: each looks at the point and answers with a `Finding`; `judge` has their order. A question enters
here when its answer can change how a fit ends or what is said of it. Nothing here takes a step of the fit, and nothing
remembers: what a verdict learns of the curvature is kept by its caller's `Curvature`.

May import: objective, curvature, linear, coordinates, point, status, errors.
"""
