"""What a fit says of data it has not seen: fitted values and intervals at other rows, and data drawn from it.

A run is opened again with its model and data, as a resume does, and put at its estimate; the model is then run on other
arguments. What fits, and what judges a fit, does not enter.

May import: ``run`` and the rooms below it.
"""
