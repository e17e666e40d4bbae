"""The physics, once: plain scalar functions that every engine compiles.

No decorator and no compiler is imported here. Each module is pasted, whole, into the module that
an engine generates; ``real`` there is ``np.float32`` or ``np.float64`` (from the precision module
of that name). So these files use only ``math``, ``numpy`` and one another's functions.
"""
