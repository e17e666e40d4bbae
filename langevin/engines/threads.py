"""One replica a thread: rewrites the loops over 64 lanes for a GPU.

The CPU engine's text says everything about a run once: what a lane draws, steps, counts. Here each
lane becomes a thread. A loop over lanes becomes its body; a buffer of lanes becomes one scalar a
row, so that the state lives in registers, or where rows are not known when compiling an array of
the thread's own, or where registers are too few a column of an array in shared memory; counts that
lanes share are added atomically.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

LANES = 64


@dataclass(frozen=True)
class Buffer:
    """A buffer of lanes: its rows (None: one row, without an index), its type, how it is kept.

    ``scalar``: one name a row; otherwise an array of the thread, or rows of the block's ``array``,
    where a thread has a column. There may be a ``part`` of the rows alone, from row ``first`` on.
    """

    rows: int | None
    kind: str
    scalar: bool
    array: str = ""
    first: int = 0
    part: range = range(0)

    def holds(self, row: ast.expr) -> bool:
        """Whether that row is in the block's array; one that is not known can be nowhere else."""
        known = isinstance(row, ast.Constant)
        return bool(self.array) and (not known or row.value in self.part)


def per_thread(
    text: str, stores: dict[str, str], *, scalar: bool, crowd: dict[str, Buffer] | None = None
) -> list[str]:
    """The lines of one thread from the CPU's lines, which loop over 64 lanes.

    ``stores`` says how to add to a store, by the name of its counts: "shared", "global" or "exact".
    ``scalar``: the rows of every buffer are known when compiling, and become scalars. ``crowd``:
    buffers, and whole numbers by their names, that are kept in shared memory.
    """
    tree = ast.parse(text)
    buffers = buffers_of(tree, scalar) | (crowd or {})
    rewritten = _Threads(buffers, stores).block(tree.body, {})
    module = ast.fix_missing_locations(ast.Module(body=rewritten, type_ignores=[]))
    return ast.unparse(module).splitlines()


def buffers_of(tree: ast.Module, scalar: bool) -> dict[str, Buffer]:
    """Every ``name = np.empty((rows, 64), kind)`` or ``np.empty(64, kind)``."""
    found = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if ast.unparse(node.value.func) != "np.empty":
            continue
        shape, kind = node.value.args
        rows = None
        if isinstance(shape, ast.Tuple):
            rows = _fold(shape.elts[0])
            rows = rows.value if isinstance(rows, ast.Constant) else 0
        if isinstance(shape, ast.Tuple) and not rows:
            raise ValueError(f"{ast.unparse(node)}: a thread needs a number of rows")
        found[node.targets[0].id] = Buffer(rows, ast.unparse(kind), rows is None or scalar)
    return found


def _fold(node: ast.AST) -> ast.AST:
    """An expression of whole numbers as one number, where it is that."""
    if isinstance(node, ast.BinOp):
        node = ast.BinOp(_fold(node.left), node.op, _fold(node.right))
        if isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant):
            a, b = node.left.value, node.right.value
            if type(a) is int and type(b) is int:
                done = {ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__}
                done |= {ast.FloorDiv: int.__floordiv__, ast.Mod: int.__mod__}
                if type(node.op) in done:
                    return ast.Constant(done[type(node.op)](a, b))
    return node


def _statements(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


def _assigned(body: list[ast.stmt]) -> set[str]:
    """Names that statements may give a new value."""
    nodes = (node for statement in body for node in ast.walk(statement))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


class _Threads:
    """The rewriting; ``known`` are the whole numbers that names are known to stand for."""

    def __init__(self, buffers: dict[str, Buffer], stores: dict[str, str]):
        self.buffers, self.stores = buffers, stores

    def block(self, body: list[ast.stmt], known: dict[str, int]) -> list[ast.stmt]:
        """Statements one after another; ``known`` is brought up to date."""
        return [new for statement in body for new in self.statement(statement, known)]

    def statement(self, node: ast.stmt, known: dict[str, int]) -> list[ast.stmt]:
        """What becomes of one statement."""
        if isinstance(node, ast.For):
            return self.loop(node, known)
        if isinstance(node, (ast.If, ast.While)):
            if isinstance(node, ast.While):
                self.forget(node.body, known)
            test = self.expression(node.test, known)
            parts = [self.block(part, dict(known)) for part in (node.body, node.orelse)]
            self.forget([*node.body, *node.orelse], known)
            if not any(parts):
                return []
            return [type(node)(test=test, body=parts[0] or [ast.Pass()], orelse=parts[1])]
        if isinstance(node, ast.AugAssign):
            return self.addition(node, known)
        if isinstance(node, ast.Assign):
            return self.assignment(node, known)
        return [node]

    def forget(self, body: list[ast.stmt], known: dict[str, int]) -> None:
        """Names that a part of the text changes are known no more."""
        for name in _assigned(body):
            known.pop(name, None)

    def loop(self, node: ast.For, known: dict[str, int]) -> list[ast.stmt]:
        """A loop over lanes is its body; one over rows of scalars is written out."""
        stop = [_fold(self.expression(a, known)) for a in node.iter.args]
        if node.target.id == "i":
            if isinstance(stop[0], ast.Constant) and stop[0].value == LANES:
                return self.block(node.body, known)
            body = self.block(node.body, dict(known))
            self.forget(node.body, known)
            return [ast.If(test=ast.parse("i < valid", mode="eval").body, body=body, orelse=[])]
        counted = all(isinstance(s, ast.Constant) for s in stop)
        if counted and self.indexes(node.body, node.target.id):
            lines = []
            for value in range(*(s.value for s in stop)):
                known[node.target.id] = value
                lines += self.block(node.body, known)
            known.pop(node.target.id, None)
            return lines
        self.forget([node], known)
        body = self.block(node.body, dict(known))
        call = ast.Call(func=node.iter.func, args=stop, keywords=[])
        return [ast.For(target=node.target, iter=call, body=body or [ast.Pass()], orelse=[])]

    def indexes(self, body: list[ast.stmt], name: str) -> bool:
        """Whether a loop's variable says which row of a buffer of scalars is meant."""
        for node in (n for statement in body for n in ast.walk(statement)):
            if isinstance(node, ast.Subscript) and (buffer := self.buffer(node)):
                row = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else None
                names = {n.id for n in ast.walk(row) if isinstance(n, ast.Name)} if row else ()
                if buffer.scalar and name in names:
                    return True
        return False

    def buffer(self, node: ast.AST) -> Buffer | None:
        """The buffer that a subscript is of."""
        is_name = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
        return self.buffers.get(node.value.id) if is_name else None

    def expression(self, node: ast.expr, known: dict[str, int]) -> ast.expr:
        """An expression with lanes and known numbers put in."""
        return _Expression(self, known).visit(ast.parse(ast.unparse(node), mode="eval").body)

    def place(self, node: ast.Subscript, known: dict[str, int], context) -> ast.expr:
        """The scalar, or the place in the thread's array, of an element of a buffer."""
        name, buffer = node.value.id, self.buffer(node)
        row = ast.Constant(0)
        if buffer.rows is not None:
            row = _fold(self.expression(node.slice.elts[0], known))
        if buffer.holds(row):
            return self.column(buffer, row, context)
        if buffer.rows is None:
            return ast.Name(name, context)
        if not buffer.scalar:
            return ast.Subscript(ast.Name(name, ast.Load()), row, context)
        if not isinstance(row, ast.Constant):
            raise ValueError(f"{ast.unparse(node)}: which row is not known when compiling")
        return ast.Name(f"{name}_{row.value}", context)

    def column(self, buffer: Buffer, row: ast.expr, context) -> ast.expr:
        """The thread's own element of a row in shared memory."""
        offset = buffer.first - buffer.part.start
        place = _fold(ast.BinOp(row, ast.Add(), ast.Constant(offset)))
        # An index without a sign is not asked whether it counts from the end.
        index = ast.unparse(place)
        index = index if isinstance(place, ast.Constant) else f"np.uint32({index})"
        made = ast.parse(f"{buffer.array}[{index}, lane]", mode="eval").body
        return ast.Subscript(made.value, made.slice, context)

    def whole(self, node: ast.AST) -> Buffer | None:
        """The place of a name that stands for a whole number in shared memory."""
        buffer = self.buffers.get(node.id) if isinstance(node, ast.Name) else None
        return buffer if buffer and buffer.rows == 0 else None

    def assignment(self, node: ast.Assign, known: dict[str, int]) -> list[ast.stmt]:
        """A buffer's allocation, a whole buffer's clearing, or any other assignment."""
        target = node.targets[0]
        if buffer := self.whole(target):
            value = self.expression(node.value, known)
            place = self.column(buffer, ast.Constant(0), ast.Store())
            return [ast.Assign(targets=[place], value=value)]
        buffer = self.buffer(target)
        if isinstance(target, ast.Name) and target.id in self.buffers:
            return self.allocation(target.id)
        if buffer and isinstance(target.slice, ast.Tuple):
            if isinstance(target.slice.elts[0], ast.Slice):
                return self.cleared(target.value.id, buffer)
        value = _fold(self.expression(node.value, known))
        if isinstance(target, ast.Name):
            whole = isinstance(value, ast.Constant) and type(value.value) is int
            if whole:
                known[target.id] = value.value
            else:
                known.pop(target.id, None)
            return [ast.Assign(targets=[target], value=value)]
        self.forget([node], known)
        if buffer:
            target, value = self.place(target, known, ast.Store()), self.kept(buffer, value)
        elif isinstance(target, ast.Subscript):
            where = self.expression(target.slice, known)
            target = ast.Subscript(target.value, where, ast.Store())
        return [ast.Assign(targets=[target], value=value)]

    def allocation(self, name: str) -> list[ast.stmt]:
        """What takes the place of ``np.empty``: nothing, except for an array of the thread."""
        buffer = self.buffers[name]
        if buffer.scalar or buffer.array:
            return []
        return _statements(f"{name} = cuda.local.array({buffer.rows}, {buffer.kind})")

    def cleared(self, name: str, buffer: Buffer) -> list[ast.stmt]:
        """Zeros in every row."""
        if not buffer.scalar:
            place = ast.Name(f"row_of_{name}", ast.Load())
            place = self.column(buffer, place, ast.Store()) if buffer.array else None
            place = ast.unparse(place) if place else f"{name}[row_of_{name}]"
            return _statements(
                f"for row_of_{name} in range({buffer.rows}):\n    {place} = {buffer.kind}(0)"
            )
        rows = [name] if buffer.rows is None else [f"{name}_{k}" for k in range(buffer.rows)]
        return [line for row in rows for line in _statements(f"{row} = {buffer.kind}(0)")]

    def addition(self, node: ast.AugAssign, known: dict[str, int]) -> list[ast.stmt]:
        """``+=`` on a buffer, on counts that threads share, or on anything else."""
        value = self.expression(node.value, known)
        target, buffer = node.target, self.buffer(node.target)
        if place := self.whole(target):
            place = self.column(place, ast.Constant(0), ast.Store())
            return [ast.AugAssign(place, node.op, value)]
        if isinstance(target, ast.Name):
            old = known.pop(target.id, None)
            if old is not None and isinstance(value, ast.Constant):
                new = _fold(ast.BinOp(ast.Constant(old), node.op, value))
                known[target.id] = new.value
                return [ast.Assign(targets=[target], value=new)]
            return [ast.AugAssign(target, node.op, value)]
        name = target.value.id
        if name in self.stores:
            return self.shared_addition(target, ast.unparse(value), known)
        if buffer is None:
            where = self.expression(target.slice, known)
            return [ast.AugAssign(ast.Subscript(target.value, where, ast.Store()), node.op, value)]
        if buffer.rows is not None and buffer.scalar:
            row = _fold(self.expression(target.slice.elts[0], known))
            if not isinstance(row, ast.Constant):
                return self.scattered(name, buffer, ast.unparse(row), ast.unparse(value))
        place = self.place(target, known, ast.Store())
        if not buffer.scalar:
            return [ast.AugAssign(place, node.op, value)]
        total = ast.BinOp(ast.Name(place.id, ast.Load()), node.op, value)
        return [ast.Assign(targets=[place], value=self.kept(buffer, total))]

    def kept(self, buffer: Buffer, value: ast.expr) -> ast.expr:
        """A value as the buffer would keep it: a scalar would take any type, and widen."""
        is_kind = isinstance(value, ast.Call) and ast.unparse(value.func) == buffer.kind
        if is_kind or not buffer.scalar:
            return value
        return ast.Call(ast.parse(buffer.kind, mode="eval").body, args=[value], keywords=[])

    def scattered(self, name: str, buffer: Buffer, row: str, value: str) -> list[ast.stmt]:
        """An addition to a row known only when running: to each row, what is its own."""
        lines = [f"row_of_{name} = {row}", f"part_of_{name} = {value}"]
        for k in range(buffer.rows):
            mine = f"part_of_{name} if row_of_{name} == {k} else {buffer.kind}(0)"
            lines.append(f"{name}_{k} = {buffer.kind}({name}_{k} + ({mine}))")
        return _statements("\n".join(lines))

    def shared_addition(self, target: ast.Subscript, value: str, known) -> list[ast.stmt]:
        """An addition to counts that other threads add to as well."""
        name, where = target.value.id, ast.unparse(self.expression(target.slice, known))
        how = self.stores[name]
        if how == "exact":
            return _statements(f"add_exactly({name}[{where}], np.float64({value}))")
        if how == "shared":
            # An index without a sign is not asked whether it counts from the end.
            place = f"np.uint32({name}_first + {where})"
            call = f"cuda.atomic.add(counters, {place}, np.int32({value}))"
        else:
            call = f"if {value} != 0:\n    cuda.atomic.add({name}, {where}, np.int64({value}))"
        return _statements(call)


class _Expression(ast.NodeTransformer):
    """Puts scalars for lanes, and numbers for the names that are known."""

    def __init__(self, threads: _Threads, known: dict[str, int]):
        self.threads, self.known = threads, known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A known number, or one in shared memory."""
        if buffer := self.threads.whole(node):
            return self.threads.column(buffer, ast.Constant(0), ast.Load())
        return ast.Constant(self.known[node.id]) if node.id in self.known else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """An element of a buffer."""
        if self.threads.buffer(node):
            return self.threads.place(node, self.known, ast.Load())
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Sums and products of numbers, done."""
        return _fold(self.generic_visit(node))
