"""Batching: a loss that is computed by many small operations, as a program of few large ones.

A model that loops over its sites computes one number at a time: what a derivative costs is then the number of
operations, not what they do. ``recording`` sees the loss computed once, ``schedule`` puts operations of one kind
together that do not wait for each other, and ``program`` computes the same loss from the same leaves by what is left.
Whether it still is the same loss must be held against the model by whoever uses it, at every point.

Source: Neubig, Goldberg & Dyer (2017), "On-the-fly operation batching in dynamic computation graphs".

May import: point, internals, and lifting's table of torch's functions.
"""
