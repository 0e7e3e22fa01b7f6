"""How sure a fit is: the Gaussian at the mode, what follows from it, and whether it is good enough.

`gaussian` has the covariances on the unconstrained scale, `errors` carries them to what users see, `diagnosis` weighs
draws from it against the density, with `psis`, and `likelihood` says what minus the loss is a likelihood of. What needs
the curvature at the end of a fit enters here; what decides how the fit ends does not (see verdict).

May import: verdict, objective, model, curvature, linear, coordinates, point, status, errors.
"""
