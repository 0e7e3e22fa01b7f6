"""A mixed model's formula, as lme4 and glmmTMB read it → a Pyro model that a person can read and edit, with its config.

The language is that of the library ``formulae``; what stands to the right of a bar is read here, because there the
library forgets which effects are correlated. The library is an extra (``hofit[formula]``), of the written model too.

May import: what the room above may.
"""
