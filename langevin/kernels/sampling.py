"""Which examples a mini-batch holds: random-access draws that need no memory."""

import numpy as np

GOLDEN = np.uint32(0x9E3779B9)
MURMUR_0 = np.uint32(0x85EBCA6B)
MURMUR_1 = np.uint32(0xC2B2AE35)
SIXTEEN = np.uint32(16)
THIRTEEN = np.uint32(13)
WORD_SHIFT = np.uint64(32)


def draw_index(word, n):
    """An index below n from a 32-bit word: ``floor(word n / 2**32)``; bias below n/2**32."""
    return np.uint32((np.uint64(word) * np.uint64(n)) >> WORD_SHIFT)


def scramble(value, salt, key_0, key_1):
    """A 32-bit hash of a value under a 64-bit key, in the manner of Murmur3's finaliser."""
    h = np.uint32(np.uint32(value ^ salt) ^ key_0)
    h = np.uint32(np.uint64(np.uint32(h ^ np.uint32(h >> SIXTEEN))) * np.uint64(MURMUR_0))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> THIRTEEN)) ^ key_1)
    h = np.uint32(np.uint64(h) * np.uint64(MURMUR_1))
    return np.uint32(h ^ np.uint32(h >> SIXTEEN))


def shifted(value, by, modulus):
    """``value + by`` in Z_modulus, for value and by below modulus."""
    total = np.uint32(np.uint64(value) + np.uint64(by))
    return np.uint32(np.uint64(total) - np.uint64(modulus)) if total >= modulus else total


def permute_round(left, right, rows, columns, r, key_0, key_1):
    """Double round r of a generalised Feistel cipher on the pairs [0, rows) x [0, columns)."""
    salt = np.uint32(np.uint64(GOLDEN) * np.uint64(2 * r + 1))
    left = shifted(left, draw_index(scramble(right, salt, key_0, key_1), rows), rows)
    salt = np.uint32(np.uint64(GOLDEN) * np.uint64(2 * r + 2))
    right = shifted(right, draw_index(scramble(left, salt, key_0, key_1), columns), columns)
    return left, right


def permute(left, right, rows, columns, n_rounds, key_0, key_1):
    """A keyed permutation of the pairs [0, rows) x [0, columns): all rounds of the cipher.

    Black and Rogaway (CT-RSA 2002). Pair (left, right) stands for the index
    ``left * columns + right``; where that is not below n, permute again ("cycle walking") and the
    result is a permutation of [0, n). Any two images are uniform over distinct pairs to about
    ``rows**-n_rounds``.
    """
    for r in range(n_rounds):
        left, right = permute_round(left, right, rows, columns, r, key_0, key_1)
    return left, right
