"""Intervals that do not rest on a Gaussian: by the likelihood's own shape, and by refitting simulated data.

A fit is opened again at its estimate; what is held elsewhere, with all else optimised anew, gives a profile, and data
drawn from the fit give a bootstrap. Neither changes the fit.

May import: ``prediction`` and the rooms below it.
"""
