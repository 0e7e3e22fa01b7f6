"""A fit on data in pieces: one a process, or one after the other in one process.

Groups stay where their data are. A **piece** has an objective of its own, over what all pieces share; what belongs to
its rows is integrated out, or settled at its mode, inside it. Values, gradients and Hessians of pieces are added up, in
one order, and the fit goes on as any other with the sum: one process leads, and the others answer.

What enters here is what a piece answers, who asks the pieces, or what their answers make together; configs, run
directories and the command line do not.

May import: uncertainty, verdict, objective, model, linear, coordinates, point, codec, errors.
"""
