"""A run, from a request to the files it leaves: a file a verb (``fit``, ``resume``, ``check``, ``diagnose``).

``session`` makes all that a fit needs of a config, with ``data``, ``matching`` and ``environment``; ``finish`` is the
way to the end that every fit goes. ``directory``, ``lock``, ``files``, ``recorder``, ``checkpoint``, ``codec`` and
``provenance`` write what a run directory holds (its columns are in ``hofit.record``), and ``signals``, ``compiler`` and
``memory`` are about the process. What computes a loss or a step does not enter, nor what prints.

May import: every room but ``cli`` and ``report``.
"""
