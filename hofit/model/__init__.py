"""A Pyro model with its data: what its trace finds and gives, and what files and tables become as its arguments.

`program.py` is the face: a model whose sites are found once (`discovery.py`) and whose log density is had at the leaves
(`evaluation.py`), discrete latents summed out (`enumeration.py`). What enters is whatever asks Pyro for something; no
optimizer, no derivative. May import: point, internals, errors.
"""
