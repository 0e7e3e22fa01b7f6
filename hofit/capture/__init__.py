"""One function of some tensors, written down while it is computed and replayed at others.

What enters: a function whose every operation torch dispatches, and the tensors that it is a function of. What leaves: a
callable that gives the same bits without the Python that computed them, or why there is none. It knows no model.
May import: `internals`.
"""
