"""A fit for other programs: draws from the Gaussian at its mode, what the model says at each, and the files they read.

What enters is another format, a file each, or what one needs to know of the model. Which run is exported, and whether
its model is still the one that was fitted, is said in ``run``. Libraries that hofit does without are imported where
they are used. May import: uncertainty, objective, model, record, point, errors, version.
"""
