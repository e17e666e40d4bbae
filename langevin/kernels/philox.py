"""Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw (SC11).

The counter is (replica, step block, draw, purpose), the key is the seed: a permanent layout. A
32-bit word is held in a uint64 whose upper half is ignored: SIMD units multiply the low halves of
64-bit lanes, so between rounds nothing needs to be masked, packed or shuffled.
"""

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)


def philox_round(c0, c1, c2, c3, k0, k1):
    """One round, and the key of the next; only the low 32 bits of each mean anything."""
    product_0 = (c0 & LOW) * MULTIPLIER_0
    product_1 = (c2 & LOW) * MULTIPLIER_1
    c0 = (product_1 >> SHIFT) ^ c1 ^ k0
    c2 = (product_0 >> SHIFT) ^ c3 ^ k1
    return c0, product_1, c2, product_0, k0 + WEYL_0, k1 + WEYL_1


def philox(c0, c1, c2, c3, k0, k1):
    """Four random 32-bit words from a counter and a key, all uint64 below 2**32.

    The rounds are written out: an inner loop would stop the vectoriser.
    """
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    return c0 & LOW, c1 & LOW, c2 & LOW, c3 & LOW
