"""A config for a model that has none: columns for its arguments, what to integrate out, by which optimizer, and why.

A suggestion is a config as a user would write it, with a reason for each choice. It is tried before it is given: what
a fit would refuse is not suggested. What fits, and what writes a run, does not enter.

May import: ``run`` and the rooms below it.
"""
