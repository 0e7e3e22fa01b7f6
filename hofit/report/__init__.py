"""A run in words: its files read back (``reading``), the table of its progress, the summary at its end, the console.

What is shown comes from the rows and keys of a run directory, so that a report needs neither the model nor its data,
and no torch. What a fit knows and a run directory does not hold cannot be shown here: it has to be written first.

May import: ``record``, ``errors``.
"""
