"""Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw (SC11).

The counter is (replica, step block, draw, purpose), the key is the seed: a permanent layout. Words
are 32-bit, held in a uint64 alone or two to a uint64: the pair form costs no more than the single
one and fills a SIMD register, so a CPU gets the words of two replicas at the price of one.
"""

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(0xFFFFFFFF00000000)
SHIFT = np.uint64(32)
MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)


def multiply(word, multiplier):
    """High and low 32 bits of the product, for one word."""
    product = word * multiplier
    return product >> SHIFT, product & LOW


def multiply_pair(words, multiplier):
    """The same for two words packed as low and high half."""
    even = (words & LOW) * multiplier
    odd = (words >> SHIFT) * multiplier
    return (even >> SHIFT) | (odd & HIGH), (even & LOW) | (odd << SHIFT)


def both(word):
    """One word in both halves."""
    return word | (word << SHIFT)


def mix(high_0, low_0, high_1, low_1, c1, c3, k0, k1):
    """What a Philox round does with its two products."""
    return high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0


def philox_round(c0, c1, c2, c3, k0, k1):
    """One round, and the key of the next."""
    high_0, low_0 = multiply(c0, MULTIPLIER_0)
    high_1, low_1 = multiply(c2, MULTIPLIER_1)
    c0, c1, c2, c3 = mix(high_0, low_0, high_1, low_1, c1, c3, k0, k1)
    return c0, c1, c2, c3, (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW


def philox_pair_round(c0, c1, c2, c3, k0, k1):
    """The same for two counters, packed; the key (one word each) is shared."""
    high_0, low_0 = multiply_pair(c0, MULTIPLIER_0)
    high_1, low_1 = multiply_pair(c2, MULTIPLIER_1)
    c0, c1, c2, c3 = mix(high_0, low_0, high_1, low_1, c1, c3, both(k0), both(k1))
    return c0, c1, c2, c3, (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW


def philox(c0, c1, c2, c3, k0, k1):
    """Four random words from a counter and a key, all 32-bit values in uint64."""
    for _ in range(10):
        c0, c1, c2, c3, k0, k1 = philox_round(c0, c1, c2, c3, k0, k1)
    return c0, c1, c2, c3


def philox_pair(c0, c1, c2, c3, k0, k1):
    """The same for two counters, packed. Written out: an inner loop would stop the vectoriser."""
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = philox_pair_round(c0, c1, c2, c3, k0, k1)
    return c0, c1, c2, c3
