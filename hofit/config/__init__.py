"""What a config may say: YAML with its lines (``source``), the schema and its defaults, the same as JSON Schema, and
the mistakes in it.

A key of the contract enters with its type, its default and what is wrong with it alone. What needs the model to be
known, as which pattern matches what, is matched in ``run``.

May import: ``patterns``, ``errors``.
"""
