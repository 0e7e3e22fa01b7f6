"""A run to look at: pictures of one or several run directories, and a page that holds everything about one.

What is drawn comes from the rows and keys of run directories (``report/reading.py``): no model, no data, no torch. A
stranger's run is data, so a name is shown and never interpreted: not as mathematics, not as HTML. matplotlib is
imported when a picture is drawn, from the extra ``plot``.

May import: ``report``, ``record``, ``errors``, ``version``.
"""
