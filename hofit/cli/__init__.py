"""The command line: one file a command, with its options, and its line in ``app``; ``screen`` is what a fit prints.

A command turns its options into a request, calls one verb of ``run`` (or reads a run by ``report``) and shows what came
of it. What computes, decides or writes a file does not enter. Nothing heavy is imported before a command runs.

May import: every room; inside the functions all but ``errors`` and ``version``.
"""
