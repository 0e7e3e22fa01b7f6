"""What is minimised: losses over a program's parameters, each with its derivatives and what is to be said of it.

An objective enters with a file of its own and its line in ``build.OBJECTIVES``; whoever fits, judges or reports asks
``base.Objective`` and never for a kind. ``leaves`` alone writes what a program is evaluated at. No loop, no stop rule
and no output is here.
May import: config (the section it is built from), model, optim (a trust region finds the mode of what is integrated
out), curvature, linear, coordinates, point, errors.
"""
