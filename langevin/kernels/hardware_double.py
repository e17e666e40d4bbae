"""float64 on a GPU: roots and ratios of ordinary numbers, without the functions for all others.

The same bits as math.sqrt and a division: an estimate by the special function unit is refined, and
rounded correctly.
"""


def radius_of(square):
    """The root of a number that is 0 or between 2**-60 and 2**60."""
    return hardware_root(square)  # noqa: F821


def ratio(a, b):
    """a / b for b between 1 and 4 and |a| below 1, 0 or above 2**-900."""
    return hardware_ratio(a, b)  # noqa: F821
