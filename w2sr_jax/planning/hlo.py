"""What a compiled program says of itself: XLA's cycles and the collectives, each times the loops around it.

Reads the text of a scheduled HLO module. The loops that JAX's scans make compare a counter with a constant, from which
the number of trips is read; a loop for which that fails counts once and is counted in `unknown_loops`. Of the branches
of a conditional the costliest counts, as in flops.py.
"""

from __future__ import annotations

import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "bf16": 16,
    "f16": 16,
    "s16": 16,
    "u16": 16,
    "f64": 64,
    "s64": 64,
}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|f8\w*|[fsu]\d+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_BODY = r"body=%?([\w.\-]+)"


@dataclasses.dataclass(slots=True)
class Collective:
    """All collectives of one kind in a step, on one chip."""

    count: int = 0
    bytes: int = 0  # of the larger side: what is gathered, what is reduced
    synchronous_bytes: int = 0  # the part during which the chip does nothing else


@dataclasses.dataclass(slots=True)
class Program:
    """Totals of one step on one chip."""

    cycles: int  # XLA's estimates, of what carries one
    collectives: dict[str, Collective]
    unknown_loops: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    text: str


def read_program(text: str, *, one_trip: bool = False) -> Program:
    """Sums over a module's entry computation and what it runs.

    Args:
        one_trip: sums over one trip of the entry computation's loop instead, of the costliest where there are several.
            A token is one trip of the decode loop, whose constant on a TPU is the length of its cache.
    """
    computations, entry = _parse(text)
    if not one_trip:
        return _total(computations, entry)
    loops = [item for item in computations[entry] if item.opcode == "while"]
    return max((_total(computations, _one(_BODY, loop.text)) for loop in loops), key=_cost)


def _total(computations: dict[str, list[_Instruction]], name: str) -> Program:
    """Of running a computation once."""
    program = Program(0, {}, 0)
    items = computations.get(name, [])
    types = {i.name: i.shape for i in items}
    for item in items:
        if item.opcode == "while":
            condition = _one(r"condition=%?([\w.\-]+)", item.text)
            known = _one(r'"known_trip_count":\{"n":"(\d+)"', item.text)  # the CPU's compiler writes it there
            trips = int(known) if known else _trips(computations.get(condition, []))
            if trips is None:
                program.unknown_loops += 1
            _add(program, _total(computations, _one(_BODY, item.text)), 1 if trips is None else trips)
            continue
        if item.opcode == "call":
            _add(program, _total(computations, _one(_CALLED.pattern, item.text)))
        if item.opcode == "conditional":
            _add(program, max((_total(computations, branch) for branch in _branches(item)), key=_cost))
        if cycles := _one(r'"estimated_cycles":"?(\d+)', item.text):
            program.cycles += int(cycles)
        if found := _collective(item, types, computations):
            kind, size, synchronous = found
            _add(program, Program(0, {kind: Collective(1, size, size if synchronous else 0)}, 0))
    return program


def _add(program: Program, other: Program, times: int = 1) -> None:
    program.cycles += other.cycles * times
    program.unknown_loops += other.unknown_loops
    for kind, more in other.collectives.items():
        total = program.collectives.setdefault(kind, Collective())
        total.count += more.count * times
        total.bytes += more.bytes * times
        total.synchronous_bytes += more.synchronous_bytes * times


def _cost(program: Program) -> tuple[int, int]:
    """By which the costliest is chosen; where nothing carries cycles (on a CPU), what is moved decides."""
    return program.cycles, sum(total.bytes for total in program.collectives.values())


def _branches(item: _Instruction) -> list[str]:
    """Computations of a conditional: two of a boolean, or as many as an index chooses from."""
    two = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", item.text)
    return two or re.findall(r"[\w.\-]+", _one(r"branch_computations=\{([^}]*)\}", item.text))


def shape_bytes(shape: str) -> int:
    """Bytes of an HLO type, of all its parts together; padding is not counted."""
    return sum(
        math.prod(int(n) for n in dims.split(",") if n) * _bits(kind) // 8 for kind, dims in _ARRAY.findall(shape)
    )


def _bits(kind: str) -> int:
    return BITS.get(kind) or (8 if kind.startswith("f8") else 32)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    computations: dict[str, list[_Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            shape, rest = _split_type(found[3])
            current.append(_Instruction(found[2], shape, rest.partition("(")[0].strip(), rest))
    return computations, entry


def _split_type(text: str) -> tuple[str, str]:
    """("type", "opcode(operands), attributes"); a tuple's type has brackets and spaces of its own."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :].lstrip()
    return text, ""


def _collective(
    item: _Instruction, types: dict[str, str], computations: dict[str, list[_Instruction]]
) -> tuple[str, int, bool] | None:
    """(kind, bytes, synchronous) of an instruction that communicates."""
    kind = item.opcode.removesuffix("-start")
    if kind in KINDS:
        operands = re.findall(r"%([\w.\-]+)", item.text.partition("(")[2].partition(")")[0])
        # A started collective's type also holds its operands: the largest part is what is moved.
        parts = [shape_bytes(f"{k}[{dims}]") for k, dims in _ARRAY.findall(item.shape)]
        size = max(parts, default=0) if item.opcode != kind else sum(parts)
        size = max(size, sum(shape_bytes(types.get(name, "")) for name in operands))
        return kind, size, item.opcode == kind
    if item.opcode != "fusion":
        return None
    called = computations.get(_one(_CALLED.pattern, item.text), [])
    inner = next((i for i in called if i.opcode in KINDS), None)
    if inner is None:
        return None
    # On a TPU an asynchronous collective is three kinds of fusions around one operation: its start, matmuls that it
    # runs along with, its end. Only the start counts.
    if item.name.startswith("async-collective-start"):
        return inner.opcode, shape_bytes(inner.shape), False
    if item.name.startswith("async-collective") or "async_collective_fusion" in item.text:
        return None
    if "calls=%all-reduce-scatter" in item.text:
        return "reduce-scatter", shape_bytes(inner.shape), True
    return inner.opcode, shape_bytes(inner.shape), True


def _trips(condition: list[_Instruction]) -> int | None:
    """How often a loop runs whose condition is `counter < constant`, the counter beginning at 0."""
    constants = {i.name: int(n) for i in condition if (n := _one(r"^constant\((\d+)\)", i.text))}
    for item in condition:
        if item.opcode == "compare" and "direction=LT" in item.text:
            for operand in re.findall(r"%([\w.\-]+)", item.text.partition(")")[0]):
                if operand in constants:
                    return constants[operand]
    return next(iter(constants.values())) if len(constants) == 1 else None


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
