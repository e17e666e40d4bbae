"""Pure-Python twins of the kernels: slow, obvious, and sharing no line with the package.

Integers are Python integers, arithmetic is float64 with ``math``'s functions. A float32 run is
reproduced to rounding: only the radius's uniform is rounded as the kernel's is, because near 1 that
rounding is all there is of the radius.
"""

import math

import numpy as np

MASK = 0xFFFFFFFF
NOISE, BATCH, PERMUTATION, SHUFFLE = 1, 2, 3, 4


# --- random words ---------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 from its definition (Salmon et al. 2011): four words from four and two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product_0, product_1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product_1 >> 32) ^ c1 ^ k0,
            product_1 & MASK,
            (product_0 >> 32) ^ c3 ^ k1,
            product_0 & MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def key_of(seed):
    """The seed is the key: low word, high word."""
    return seed & MASK, seed >> 32


def box_muller(uniform, turns):
    """Two normals from a uniform in (0, 1] and an angle in turns."""
    radius = math.sqrt(-2 * math.log(uniform))
    return radius * math.cos(2 * math.pi * turns), radius * math.sin(2 * math.pi * turns)


def normal_pair(words, dtype):
    """Two normals from two words (float32) or four (float64)."""
    if dtype == "float32":
        uniform = float(np.float32(words[0]) + np.float32(0.5)) / 2**32
        return box_muller(uniform, words[1] / 2**32)
    mantissa = (words[0] << 21) ^ (words[1] >> 11)  # 53 bits
    return box_muller((mantissa + 0.5) / 2**53, (words[2] + words[3] / 2**32) / 2**32)


def noise(seed, replica, step, component, dtype):
    """The normal of one replica, step (from 0) and component."""
    group, place = divmod(step, 4)
    key = key_of(seed)
    if dtype == "float32":
        words = philox((replica, group, component, NOISE), key)
        pair = normal_pair(words[2 * (place // 2) :][:2], dtype)
    else:
        pair = normal_pair(philox((replica, group, 2 * component + place // 2, NOISE), key), dtype)
    return pair[place % 2]


# --- mini-batches ---------------------------------------------------------------------------------


def batch_with_replacement(seed, replica, step, size, n):
    """``size`` independent indices below n."""
    indices = []
    for b in range(size):
        words = philox((replica, step, b // 4, BATCH), key_of(seed))
        indices.append((words[b % 4] * n) >> 32)
    return indices


def scramble(value, salt, key):
    """A 32-bit hash, in the manner of Murmur3's finaliser."""
    h = (value ^ salt ^ key[0]) & MASK
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & MASK
    h = h ^ (h >> 13) ^ key[1]
    h = (h * 0xC2B2AE35) & MASK
    return h ^ (h >> 16)


def table(n):
    """Rows and columns of the pairs that stand for indices below n."""
    rows = max(2, math.isqrt(n))
    return rows, -(-n // rows)


def permuted(b, n, key, n_rounds=None):
    """The image of b under the keyed permutation of [0, n)."""
    rows, columns = table(n)
    if n_rounds is None:
        n_rounds = max(4, math.ceil(20 / math.log2(max(rows, 2))))
    while True:
        left, right = divmod(b, columns)
        for r in range(n_rounds):
            salt = (0x9E3779B9 * (2 * r + 1)) & MASK
            left = (left + ((scramble(right, salt, key) * rows) >> 32)) % rows
            salt = (0x9E3779B9 * (2 * r + 2)) & MASK
            right = (right + ((scramble(left, salt, key) * columns) >> 32)) % columns
        b = left * columns + right
        if b < n:
            return b


def batch_without_replacement(seed, replica, step, size, n):
    """``size`` different indices below n."""
    key = philox((replica, step, 0, PERMUTATION), key_of(seed))[:2]
    return [permuted(b, n, key) for b in range(size)]


def batch_of_epoch(seed, replica, epoch, offset, size, n):
    """Examples ``offset`` ... ``offset + size`` of an epoch's own order."""
    key = philox((replica, epoch, 0, SHUFFLE), key_of(seed))[:2]
    return [permuted(offset + b, n, key) for b in range(size)]


def epochs(sizes, n, drop_last=True):
    """(epoch, offset, size) of steps that take ``sizes`` examples each, in turn."""
    places, epoch, offset = [], 0, 0
    for size in sizes:
        left = n - offset
        if left == 0 or (drop_last and left < size):
            epoch, offset, left = epoch + 1, 0, n
        places.append((epoch, offset, min(size, left)))
        offset += min(size, left)
    return places


# --- dynamics -------------------------------------------------------------------------------------


def value_for(value, r, t=0):
    """A scalar, or replica r's entry; a function is a schedule, of the step."""
    value = value(t) if callable(value) else value
    return float(value[r]) if np.ndim(value) else float(value)


def sgd_step(x, buffer, gradient, learning_rate, momentum, weight_decay=0.0, nesterov=False):
    """PyTorch's SGD, one component at a time; buffers begin at zero."""
    gradient = [g + weight_decay * p for g, p in zip(gradient, x, strict=True)]
    buffer = [momentum * b + g for b, g in zip(buffer, gradient, strict=True)]
    along = buffer
    if nesterov:
        along = [g + momentum * b for g, b in zip(gradient, buffer, strict=True)]
    return [p - learning_rate * v for p, v in zip(x, along, strict=True)], buffer


def sgd(gradient, starts, n_steps, seed, *, learning_rate, batch_size=1.0, momentum=0.0,
        sigma=1.0, dtype="float64", first_replica=0, weight_decay=0.0,
        nesterov=False):  # fmt: skip
    """SGD on a formula: trajectories (n_replicas, n_steps + 1, dim) and final buffers."""

    def step(x, buffer, r, t):
        scale = sigma / math.sqrt(value_for(batch_size, r, t))
        xi = [noise(seed, first_replica + r, t, k, dtype) for k in range(len(x))]
        noisy = [g + scale * z for g, z in zip(gradient(*x), xi, strict=True)]
        rate, m = value_for(learning_rate, r, t), value_for(momentum, r)
        return sgd_step(x, buffer, noisy, rate, m, value_for(weight_decay, r), nesterov)

    return run(step, starts, n_steps)


def overdamped(gradient, starts, n_steps, seed, *, temperature, dt, dtype="float64",
               first_replica=0):  # fmt: skip
    """Euler-Maruyama: trajectories (n_replicas, n_steps + 1, dim)."""

    def step(x, buffer, r, t):
        h, width = value_for(dt, r), math.sqrt(2 * value_for(temperature, r) * value_for(dt, r))
        xi = [noise(seed, first_replica + r, t, k, dtype) for k in range(len(x))]
        return [p - h * g + width * z for p, g, z in zip(x, gradient(*x), xi, strict=True)], buffer

    return run(step, starts, n_steps)[0]


def minibatch_sgd(example_gradient, n, starts, n_steps, seed, *, learning_rate, batch_size,
                  momentum=0.0, sampling="with_replacement", l2=0.0, first_replica=0,
                  weight_decay=0.0, nesterov=False, drop_last=True):  # fmt: skip
    """SGD on data; ``example_gradient(w, index)`` is one example's gradient, penalty excluded."""

    def examples(r, t):
        number, size = first_replica + r, round(value_for(batch_size, r, t))
        if sampling == "with_replacement":
            return batch_with_replacement(seed, number, t, size, n)
        if sampling == "without_replacement":
            return batch_without_replacement(seed, number, t, size, n)
        sizes = [round(value_for(batch_size, r, k)) for k in range(t + 1)]
        return batch_of_epoch(seed, number, *epochs(sizes, n, drop_last)[-1], n)

    def step(x, buffer, r, t):
        indices = examples(r, t)
        mean = [l2 * w for w in x]
        for index in indices:
            for k, g in enumerate(example_gradient(x, index)):
                mean[k] += g / len(indices)
        rate, m = value_for(learning_rate, r, t), value_for(momentum, r)
        return sgd_step(x, buffer, mean, rate, m, value_for(weight_decay, r), nesterov)

    return run(step, starts, n_steps)


def run(step, starts, n_steps):
    """Every replica, step after step, nothing clever."""
    starts = np.asarray(starts, dtype=float)
    trajectories = np.empty((len(starts), n_steps + 1, starts.shape[1]))
    buffers = np.empty_like(starts)
    for r, start in enumerate(starts):
        x, buffer = list(start), [0.0] * len(start)
        trajectories[r, 0] = x
        for t in range(n_steps):
            x, buffer = step(x, buffer, r, t)
            trajectories[r, t + 1] = x
        buffers[r] = buffer
    return trajectories, buffers


# --- observers ------------------------------------------------------------------------------------


def observed(trajectories, burn_in, every):
    """The states that an observer sees: steps after burn_in that are multiples of ``every``."""
    n_steps = trajectories.shape[1] - 1
    steps = [t for t in range(1, n_steps + 1) if t > burn_in and t % every == 0]
    return trajectories[:, steps]


def histogram(states, edges):
    """Counts inside half-open equal bins (a list of edges an axis), and the number outside."""
    shape = tuple(len(e) - 1 for e in edges)
    counts, outside = np.zeros(shape, int), 0
    for x in states.reshape(-1, states.shape[-1]):
        place = tuple(
            math.floor((c - e[0]) / (e[-1] - e[0]) * (len(e) - 1))
            for c, e in zip(x, edges, strict=True)
        )
        if all(0 <= p < s for p, s in zip(place, shape, strict=True)):
            counts[place] += 1
        else:
            outside += 1
    return counts, outside


def occupation(states, thresholds):
    """Counts of each 1-D basin between thresholds."""
    counts = [0] * (len(thresholds) + 1)
    for x in states.ravel():
        counts[sum(x > t for t in thresholds)] += 1
    return np.array(counts)


def moments(states):
    """Mean and population covariance over all observed states."""
    flat = states.reshape(-1, states.shape[-1])
    mean = sum(flat) / len(flat)
    covariance = sum(np.outer(x - mean, x - mean) for x in flat) / len(flat)
    return mean, covariance


def first_passage(trajectories, inside, every=1, leave=False):
    """Each replica's first step, among multiples of ``every``, inside a region (or outside)."""
    found = []
    for path in trajectories:
        steps = [t for t in range(every, len(path), every) if bool(inside(*path[t])) is not leave]
        found.append(steps[0] if steps else math.nan)
    return np.array(found)


def transitions(labels, n):
    """Counts (2, n, n) of label pairs one and two looks apart; -1 is no label, and ends a chain."""
    counts = np.zeros((2, n, n), int)
    for row in labels:
        for t in range(1, len(row)):
            if row[t] >= 0 and row[t - 1] >= 0:
                counts[0, row[t - 1], row[t]] += 1
                if t > 1 and row[t - 2] >= 0:
                    counts[1, row[t - 2], row[t]] += 1
    return counts


def autocorrelation(values, lags):
    """rho at lags 0, 1, ... of values (replicas, looks): a reference at each lags-th look."""
    products, first, later, count = (np.zeros(lags) for _ in range(4))
    for row in values:
        for t, value in enumerate(row):
            reference = row[t - t % lags]
            products[t % lags] += reference * value
            first[t % lags] += reference
            later[t % lags] += value
            count[t % lags] += 1
    mean = later.sum() / count.sum()
    covariance = (products - mean * (first + later)) / count + mean**2
    return covariance / covariance[0]
