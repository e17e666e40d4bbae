"""What each stream of random numbers is for: permanent and unique, never reuse a number."""

from enum import IntEnum


class Purpose(IntEnum):
    """The fourth word of the Philox counter."""

    NOISE = 1  # Gaussian noise of a step: (replica, step // 4, component [, half], NOISE)
    BATCH = 2  # indices with replacement: (replica, step, index // 4, BATCH)
    PERMUTATION = 3  # key of a mini-batch permutation: (replica, step, 0, PERMUTATION)
    SHUFFLE = 4  # key of an epoch's permutation: (replica, epoch, 0, SHUFFLE)
    INITIAL = 5  # initialisation of a network: (replica, 0, 0, INITIAL)
    DROPOUT = 6  # dropped units: (replica, gradient, unit // 4, DROPOUT + 256 layer)
    MODULE = 7  # seed of a module that draws by itself: (replica, gradient, 0, MODULE)
    SUBSET = 16  # rank of an example of a data set: (example, 0, 0, SUBSET)
    NOISY = 17  # rank of an example among those whose label is replaced: (example, 0, 0, NOISY)
    LABEL = 18  # the label that replaces it: (example, 0, 0, LABEL)
    PROBE = 24  # signs of a random vector: (vector, element // 128, 0, PROBE)
    DIRECTION = 25  # normals of a random vector: (vector, element // 4, 0, DIRECTION)
    PLACE = 26  # uniform numbers, such as ranks: (vector, element // 4, 0, PLACE)
