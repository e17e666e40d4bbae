"""A Philox round on a GPU: words of 32 bits, and one instruction for a product of 64.

The integers of philox.py, bit for bit.
"""

import numpy as np

from langevin.kernels.philox import SHIFT, WEYL_0, WEYL_1

WORD_0 = np.uint32(0xD2511F53)
WORD_1 = np.uint32(0xCD9E8D57)


def philox_round(c0, c1, c2, c3, k0, k1):
    """One round, and the key of the next."""
    product_0 = hardware_product(np.uint32(c0), WORD_0)  # noqa: F821
    product_1 = hardware_product(np.uint32(c2), WORD_1)  # noqa: F821
    c0 = np.uint32(np.uint32(product_1 >> SHIFT) ^ np.uint32(c1) ^ np.uint32(k0))
    c2 = np.uint32(np.uint32(product_0 >> SHIFT) ^ np.uint32(c3) ^ np.uint32(k1))
    return c0, np.uint32(product_1), c2, np.uint32(product_0), k0 + WEYL_0, k1 + WEYL_1
