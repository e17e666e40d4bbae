"""Assembles a kernel's PTX without a GPU, and counts the instructions of its loop over steps.

The assembler is nvJitLink, from the wheels of ``pip install langevin[cuda]``, or a ptxas on PATH
that knows the PTX's version. It says how many registers a thread takes and what went to local
memory. The machine's own instructions (SASS) are read where nvdisasm or cuobjdump is at hand: on
PATH, named by $NVDISASM, or from the wheels nvidia-cuda-nvdisasm and nvidia-cuda-cuobjdump. Without
them, PTX is counted instead: an estimate.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PHILOX = 16  # wide products of the ten rounds that a loop over groups of steps cannot avoid
SPECIAL = ("sin.approx", "cos.approx", "lg2.approx", "sqrt.approx", "ex2.approx", "rcp.")


class MissingTool(RuntimeError):
    """No assembler that takes this PTX is installed."""


@dataclass(frozen=True)
class Assembled:
    """What the assembler says of a kernel; bytes are those of one thread."""

    cubin: bytes
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    by: str

    @property
    def local_memory(self) -> int:
        """Bytes that are not in registers."""
        return self.stack + self.spill_stores + self.spill_loads


@dataclass(frozen=True)
class Loop:
    """The instructions of the loop over groups of four steps, as often as they are written."""

    instructions: tuple[str, ...]
    source: str  # "SASS" or "PTX"

    @property
    def slots(self) -> float:
        """Instructions issued; from PTX an estimate, within about a tenth.

        Moves, halves of a pair and sizes are free there; the assembler joins two exclusive ors; an
        angle is multiplied once more.
        """
        if self.source == "SASS":
            return len(self.instructions)
        free = self.count("mov", "cvt.u32.u64", "cvt.u64.u32", "shr.u64", "abs")
        turns = self.count("sin.", "cos.") / 2
        return len(self.instructions) - free - self.count("xor.b32") / 2 + turns

    @property
    def special(self) -> int:
        """Instructions of the special function units."""
        return self.count("MUFU") if self.source == "SASS" else self.count(*SPECIAL)

    def count(self, *names: str) -> int:
        """Instructions that begin with one of the names."""
        return sum(line.startswith(names) for line in self.instructions)


# ------------------------------------------------------------------------------------ assembling


@functools.cache
def why_not() -> str:
    """Why nothing can be assembled here; "" where something can."""
    if importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings"):
        try:
            from cuda.bindings import nvjitlink

            nvjitlink.version()
            return ""
        except Exception as error:  # whatever a loader says
            reason = f"nvJitLink does not load ({' '.join(str(error).split())[:120]})"
    else:
        reason = "the wheels of langevin[cuda] are not installed"
    return "" if shutil.which("ptxas") else f"{reason}, and no ptxas is on PATH"


def assembled(ptx: str, architecture: str = "sm_90", limit: int = 255) -> Assembled:
    """The machine code of PTX, with registers and spills; MissingTool where nothing can do it.

    ``limit``: registers that a thread may take.
    """
    if why_not():
        raise MissingTool(why_not())
    try:
        from cuda.bindings import nvjitlink

        cubin, log = _linked(nvjitlink, ptx, architecture, limit)
        by = "nvJitLink {}.{}".format(*nvjitlink.version())
    except ImportError:
        cubin, log = _by_ptxas(ptx, architecture, limit)
        by = "ptxas"
    found = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    registers = re.search(r"Used (\d+) registers", log)
    if not (found and registers):
        raise MissingTool(f"{by} does not say what it did: {log[:300]}")
    return Assembled(cubin, int(registers[1]), *(int(v) for v in found.groups()), by)


def _linked(nvjitlink, ptx: str, architecture: str, limit: int) -> tuple[bytes, str]:
    text = ptx.encode()
    options = [f"-arch={architecture}", "-verbose", "-O3", f"-maxrregcount={limit}"]
    handle = nvjitlink.create(len(options), options)
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), log.decode(errors="replace")


def _by_ptxas(ptx: str, architecture: str, limit: int) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = ["ptxas", "-v", f"-arch={architecture}", f"-maxrregcount={limit}"]
        command += [str(source), "-o", str(target)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            raise MissingTool(f"ptxas does not take this PTX: {told.stderr.strip()[:200]}")
        return target.read_bytes(), told.stdout + told.stderr


# ------------------------------------------------------------------------------------ the loop


def disassembler() -> str | None:
    """The path of nvdisasm or cuobjdump, or None."""
    named = os.environ.get("NVDISASM")
    if named:
        return named
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in spec.submodule_search_locations] if spec else []
    for name in ("nvdisasm", "cuobjdump"):
        wheels = [path for folder in folders for path in folder.glob(f"*/bin/{name}")]
        found = shutil.which(name) or next((str(path) for path in wheels), None)
        if found:
            return found
    return None


def step_loop(ptx: str, code: Assembled | None = None) -> Loop:
    """The smallest loop that holds a whole Philox: in SASS where it can be read, else in PTX."""
    return step_loops(ptx, code)[0]


def step_loops(ptx: str, code: Assembled | None = None) -> list[Loop]:
    """That loop, and those around it: a loop from look to look, where there are observers."""
    tool = disassembler() if code else None
    if tool is None:
        return [Loop(body, "PTX") for body in _whole(*_listed_ptx(ptx), "mul.wide.u32")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code.cubin)
        flags = ["-sass"] if "cuobjdump" in Path(tool).name else ["-c"]
        told = subprocess.run([tool, *flags, str(path)], capture_output=True, text=True, check=True)
    return [Loop(b, "SASS") for b in _whole(*_listed_sass(told.stdout), "IMAD.WIDE.U32")]


def _listed_sass(text: str) -> tuple[list[str], dict[str, int], list[tuple[int, str]]]:
    """Instructions, where labels and addresses stand, and (place, target) of the branches."""
    lines, places, branches, section = [], {}, [], 0
    for line in text.splitlines():
        if re.match(r"\s*\.section|\s*Function :", line):
            section += 1  # addresses begin anew
        if label := re.match(r"\s*(\.L_\w+):", line):
            places[label[1]] = len(lines)
        if found := re.match(r"\s+/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P\w+ +)?(.*?);", line):
            places[f"{section}:{int(found[1], 16)}"] = len(lines)
            if target := re.match(r"BRA\S*\s.*?(?:`\((\.L_\w+)\)|0x([0-9a-f]+))", found[2]):
                name = target[1] or f"{section}:{int(target[2], 16)}"
                branches.append((len(lines), name))
            lines.append(found[2].strip())
    return lines, places, branches


def _listed_ptx(text: str) -> tuple[list[str], dict[str, int], list[tuple[int, str]]]:
    lines, places, branches = [], {}, []
    for line in text.splitlines():
        line = line.strip()
        if label := re.match(r"(\$?[\w$]+):", line):
            places[label[1]] = len(lines)
        found = re.match(r"(?:\{ ?)?(?:@!?%p\d+\s+)?([a-z][\w.]*\s.*?);", line)
        if found and not line.startswith("."):
            if target := re.match(r"bra\S*\s+(\$?[\w$]+)", found[1]):
                branches.append((len(lines), target[1]))
            lines.append(found[1])
    return lines, places, branches


def _whole(lines, places, branches, product: str) -> list[tuple[str, ...]]:
    """Bodies of the loops that hold a whole Philox, smallest first."""
    loops = {
        (places[target], at + 1)
        for at, target in branches
        if target in places and places[target] <= at
    }
    whole = [
        tuple(lines[begin:end])
        for begin, end in sorted(loops, key=lambda span: span[1] - span[0])
        if sum(line.startswith(product) for line in lines[begin:end]) >= PHILOX
    ]
    if not whole:
        raise ValueError("no loop holds the random numbers of a step")
    return whole


def calls(ptx: str) -> int:
    """Functions that PTX calls instead of holding them."""
    return sum(line.strip().startswith("call") for line in ptx.splitlines())
