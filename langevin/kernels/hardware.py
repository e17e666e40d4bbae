"""float32 on a GPU: normals from the special function units.

``hardware_log2``, ``hardware_sqrt``, ``hardware_sine`` and ``hardware_cosine`` are one instruction
each, with absolute errors of 2**-22 (the logarithm between 1/2 and 2; elsewhere relative) and
2**-20.5 (sine and cosine within a turn), after the CUDA C++ programming guide. A normal is off by
at most 5e-6, where |z| = 6.7, and below |z| = 3 by 3e-6; where its radius r is below 1, the
logarithm adds 1.7e-7/r, at most 6e-4 (which one pair in a million has: r < 1e-3). The surface's own
functions stay those of float32.py.
"""

import math

import numpy as np

from langevin.kernels.float32 import real

TWO_LN2 = real(1.3862943611198906)
TURN = real(math.pi * 2.0**-31)


def normal_pair(w0, w1):
    """Two standard normals from two 32-bit words, as float32's: Box-Muller, both outputs."""
    u = real(w0) * real(2.0**-32) + real(2.0**-33)
    # Near u = 1 the logarithm may be above 0: its size costs nothing.
    radius = hardware_sqrt(TWO_LN2 * abs(hardware_log2(u)))  # noqa: F821
    angle = real(np.uint32(w1).view(np.int32)) * TURN
    return radius * hardware_cosine(angle), radius * hardware_sine(angle)  # noqa: F821
