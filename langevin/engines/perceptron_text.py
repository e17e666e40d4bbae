"""The source of one training loop for multilayer perceptrons: forward, backward and update.

Three products of matrices make up a step of a layer. Each is written in tiles of four rows whose
sums stay in registers, over a dimension that lies contiguous in memory and so fills the lanes of a
vector: the layer's outputs are dot products along its inputs, the gradients sums of rows.
The last of them, that of the weights, ends in ``advance`` while four rows of it are in cache.
"""

from __future__ import annotations

from langevin.engines.compiling import pasted
from langevin.engines.source import Step, joined, module_source, names
from langevin.engines.streams import DRAW
from langevin.kernels import networks

ROWS = 4  # of a tile
DEPTH = 8  # rows that are added to a tile at once
BLOCK = 128  # examples that go through the network together
IDENTITY, RECTIFIED, TANH, SIGMOID = range(4)


def _products(rows: int, columns: int) -> str:
    """``out[i + r, j + q] = sum_k a[i + r, k] b[j + q, k]``, in any order of the sum."""
    cells = [(r, q) for r in range(rows) for q in range(columns)]
    lines = [f"def dot_products_{columns}(out, a, b, i, j, width):", "    kernel_hints()"]
    lines += [f"    s{r}_{q} = real(0)" for r, q in cells]
    lines += ["    for k in range(width):"]
    lines += [f"        a{r} = a[i + {r}, k]" for r in range(rows)]
    lines += [f"        b{q} = b[j + {q}, k]" for q in range(columns)]
    lines += [f"        s{r}_{q} += a{r} * b{q}" for r, q in cells]
    lines += [f"    out[i + {r}, j + {q}] = s{r}_{q}" for r, q in cells]
    return "\n".join(lines) + "\n"


def _sums(name: str, factor: str, depth: int) -> str:
    """``out[t + r, k] += sum_q factor b[j + q, k]``."""
    cells = [(r, q) for r in range(ROWS) for q in range(depth)]
    lines = [f"def {name}_{depth}(out, t, f, b, i, j, width):", "    kernel_hints()"]
    lines += [f"    f{r}_{q} = {factor.format(r=r, q=q)}" for r, q in cells]
    lines += ["    for k in range(width):"]
    lines += [f"        b{q} = b[j + {q}, k]" for q in range(depth)]
    for r in range(ROWS):
        lines += [f"        s{r} = out[t + {r}, k]"]
        lines += [f"        s{r} += f{r}_{q} * b{q}" for q in range(depth)]
        lines += [f"        out[t + {r}, k] = s{r}"]
    return "\n".join(lines) + "\n"


ACROSS, ALONG = "f[i + {r}, j + {q}]", "f[j + {q}, i + {r}]"

FORWARD = f"""
def clear(block, begin, end, width):
    for r in range(begin, end):
        for k in range(width):
            block[r, k] = real(0)


def sum_of_squares(row):
    total = 0.0
    for k in range(row.shape[0]):
        total += np.float64(row[k]) * np.float64(row[k])
    return total


def layer(out, a, w, b, has_bias, n, n_in, n_out, kind, slope):
    for o in range(0, n_out - {ROWS - 1}, {ROWS}):
        for r in range(0, n, {ROWS}):
            dot_products_{ROWS}(out, a, w, r, o, n_in)
    for o in range(n_out - n_out % {ROWS}, n_out):
        for r in range(0, n, {ROWS}):
            dot_products_1(out, a, w, r, o, n_in)
    for r in range(n):
        if has_bias:
            for o in range(n_out):
                out[r, o] += b[0, o]
        if kind == {RECTIFIED}:
            for o in range(n_out):
                out[r, o] = rectified(out[r, o], slope)
        elif kind == {TANH}:
            for o in range(n_out):
                out[r, o] = tanh(out[r, o])
        elif kind == {SIGMOID}:
            for o in range(n_out):
                out[r, o] = sigmoid(out[r, o])


def back(before, d, w, a, n, n_in, n_out, kind, slope):
    for r in range(0, n, {ROWS}):
        for q in range({ROWS}):
            for k in range(before.shape[1]):
                before[r + q, k] = real(0)
        for o in range(0, n_out - {DEPTH - 1}, {DEPTH}):
            sums_across_{DEPTH}(before, r, d, w, r, o, n_in)
        for o in range(n_out - n_out % {DEPTH}, n_out):
            sums_across_1(before, r, d, w, r, o, n_in)
        for q in range(r, r + {ROWS}):
            if kind == {RECTIFIED}:
                for k in range(n_in):
                    before[q, k] *= rectified_slope(a[q, k], slope)
            elif kind == {TANH}:
                for k in range(n_in):
                    before[q, k] *= tanh_slope(a[q, k])
            elif kind == {SIGMOID}:
                for k in range(n_in):
                    before[q, k] *= sigmoid_slope(a[q, k])
"""

# The losses of n examples; their slopes go to d, whose rows and columns beyond are 0.
LOSSES = {
    "cross_entropy": """
def losses(d, z, scratch, at, y, index, begin, n, width, share):
    total = 0.0
    for r in range(n):
        top = z[r, 0]
        for c in range(width):
            top = z[r, c] if z[r, c] > top else top
        total -= z[r, y[index[begin + r]]] - top
        for c in range(width):
            z[r, c] -= top
    flat = matrix(scratch, at, 1, n * width)
    for c in range(n * width):
        flat[0, c] = exp(flat[0, c])
    for r in range(n):
        norm = real(0)
        for c in range(width):
            norm += z[r, c]
        total += log(norm)
        scale = share / norm
        for c in range(width):
            d[r, c] = z[r, c] * scale
        d[r, y[index[begin + r]]] -= share
    return total
""",
    "squared": """
def losses(d, z, scratch, at, y, index, begin, n, width, share):
    total = 0.0
    for r in range(n):
        for c in range(width):
            d[r, c] = z[r, c] - y[index[begin + r], c]
            total += real(0.5) * d[r, c] * d[r, c]
            d[r, c] *= share
    return total
""",
    "mse": """
def losses(d, z, scratch, at, y, index, begin, n, width, share):
    total = 0.0
    for r in range(n):
        for c in range(width):
            d[r, c] = z[r, c] - y[index[begin + r], c]
            total += d[r, c] * d[r, c] / real(width)
            d[r, c] *= real(2) * share / real(width)
    return total
""",
}


def run_source(step: Step | None) -> str:
    """``run``: steps of one replica; without ``step``, a gradient instead.

    ``layers[l]`` are where weight and bias begin in a row (or -1), inputs, outputs, activation.
    ``places[s]`` are size, epoch and offset of the mini-batch of step s, ``table[s]`` the step's
    coefficients, ``places[s, 0]`` examples drawn as ``how`` says, or the first ones with -1.
    """
    if step is None:
        state, drawn, coefficients = ["x"], [], []
        update = ["gradient[at + k] = sums[q, k] + penalty * row0[at + k]"]
    else:
        state, drawn, coefficients = step.state, names("z", step.n_normals), step.coefficients
        rows = [f"row{k}[at + k]" for k in range(len(state))]
        update = [f"{name} = {row}" for name, row in zip(state, rows, strict=True)]
        update += [f"{z} = noise{n}[at + k]" for n, z in enumerate(drawn)]
        update += [f"g0 = sums[q, k] + penalty * {state[0]}"]
        given = joined(state, ["g0"], drawn, [f"c{k}" for k in range(len(coefficients))])
        update += [f"({joined(state)},) = advance({given})"]
        update += [f"{row} = {name}" for name, row in zip(state, rows, strict=True)]
    rows = names("row", len(state))
    noises = names("noise", len(drawn))
    loads = [f"c{k} = table[s, {k}]" for k in range(len(coefficients))]
    given = joined(rows, noises, [f"c{k}" for k in range(len(coefficients))])
    given = given + ", " if given else ""
    body = "\n".join("            " + line for line in update)
    loads = "\n".join("        " + line for line in loads)
    return f"""
def finish(sums, q, at, width, last, gradient, {given}penalty):
    if last:
        for k in range(width):
{body}
    else:
        for k in range(width):
            gradient[at + k] = sums[q, k]


def run(
    {joined(rows, noises)}, gradient, X, y, layers, slopes, scratch, index, trace, places,
    table, penalty, ident, begin_step, n_examples, grid_rows, grid_columns, rounds, how, key0, key1
):
    kernel_hints()
    n_layers = layers.shape[0]
    widest = 0
    at_delta = 0
    for l in range(n_layers):
        widest = max(widest, max(layers[l, 2], layers[l, 3]))
        at_delta += {BLOCK} * layers[l, 2]
    at_delta += {BLOCK} * layers[n_layers - 1, 3]
    widest += -widest % {ROWS}
    at_sum = at_delta + 2 * {BLOCK} * widest
    tile = matrix(scratch, at_sum, {ROWS}, widest)
    for s in range(trace.shape[0]):
{loads}
        size = places[s, 0]
        if how < 0:
            for b in range(size):
                index[b] = b
        else:
            draw_batch(
                index, size, ident, begin_step + s, places[s, 1], places[s, 2],
                n_examples, grid_rows, grid_columns, rounds, how, key0, key1,
            )
        share = real(1) / real(size)
        total = 0.0
        if penalty > 0:
            total = 0.5 * penalty * size * sum_of_squares(row0)
        for begin in range(0, size, {BLOCK}):
            n = min({BLOCK}, size - begin)
            n_tiled = n + -n % {ROWS}
            n_deep = n + -n % {DEPTH}
            last = begin + n == size
            first_width = layers[0, 2]
            a = matrix(scratch, 0, {BLOCK}, first_width)
            for r in range(n):
                example = index[begin + r]
                for k in range(first_width):
                    a[r, k] = X[example, k]
            clear(a, n, n_deep, first_width)
            at = {BLOCK} * first_width
            for l in range(n_layers):
                n_in, n_out = layers[l, 2], layers[l, 3]
                w = matrix(row0, layers[l, 0], n_out, n_in)
                b = matrix(row0, max(layers[l, 1], 0), 1, n_out)
                out = matrix(scratch, at, {BLOCK}, n_out)
                kind, slope = layers[l, 4], slopes[l]
                layer(out, a, w, b, layers[l, 1] >= 0, n_tiled, n_in, n_out, kind, slope)
                clear(out, n_tiled, n_deep, n_out)
                a = out
                at += {BLOCK} * n_out
            side = 0
            padded = n_out + -n_out % {ROWS}
            d = matrix(scratch, at_delta, {BLOCK}, padded)
            clear(d, 0, n_deep, padded)
            at -= {BLOCK} * n_out
            total += losses(d, a, scratch, at, y, index, begin, n, n_out, share)
            for l in range(n_layers - 1, -1, -1):
                n_in, n_out = layers[l, 2], layers[l, 3]
                at -= {BLOCK} * n_in
                a = matrix(scratch, at, {BLOCK}, n_in)
                side = 1 - side
                padded = n_in + -n_in % {ROWS}
                start = at_delta + side * {BLOCK} * widest
                before = matrix(scratch, start, {BLOCK}, padded)
                if l > 0:
                    w = matrix(row0, layers[l, 0], n_out, n_in)
                    kind, slope = layers[l - 1, 4], slopes[l - 1]
                    back(before, d, w, a, n_tiled, n_in, n_out, kind, slope)
                    clear(before, n, n_deep, padded)
                for o in range(0, n_out, {ROWS}):
                    count = min({ROWS}, n_out - o)
                    place = layers[l, 0] + o * n_in
                    clear(tile, 0, {ROWS}, n_in)
                    if begin > 0:
                        for q in range(count):
                            for k in range(n_in):
                                tile[q, k] = gradient[place + q * n_in + k]
                    for j in range(0, n_deep, {DEPTH}):
                        sums_along_{DEPTH}(tile, 0, d, a, o, j, n_in)
                    for q in range(count):
                        finish(tile, q, place + q * n_in, n_in, last, gradient, {given}penalty)
                place = layers[l, 1]
                if place >= 0:
                    for o in range(n_out):
                        tile[0, o] = gradient[place + o] if begin > 0 else real(0)
                    for r in range(n):
                        for o in range(n_out):
                            tile[0, o] += d[r, o]
                    finish(tile, 0, place, n_out, last, gradient, {given}penalty)
                d = before
        trace[s] = total / size
"""


def perceptron_source(dtype: str, loss: str, step: Step | None, *parts: str) -> str:
    """The whole module; ``parts`` define ``advance`` of ``step``."""
    tiles = [_products(ROWS, ROWS), _products(ROWS, 1), _sums("sums_along", ALONG, DEPTH)]
    tiles += [_sums("sums_across", ACROSS, depth) for depth in (DEPTH, 1)]
    text = [pasted(networks), DRAW, *tiles, FORWARD, LOSSES[loss], run_source(step)]
    return module_source(dtype, *parts, *text)
