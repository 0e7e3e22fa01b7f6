"""Lifting: to take the linear maps through which a loss reads its parameters out of what must be differentiated.

``watch`` sees a model compute its loss and cuts the computation behind every such map, as ``rules`` and ``products``
say for each of torch's ``functions``; ``seconds`` probes what is left, which falls apart entry by entry; ``pieces``
joins both to the Hessian. ``maps`` are the linear maps, ``tape`` differentiates through the cuts. What enters is a loss
that can be evaluated under watch, and its leaves: no site, no layout, no matrix structure is known here.

May import: point, internals, and proof of the curvature.
"""
