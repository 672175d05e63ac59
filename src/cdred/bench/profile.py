"""Where a compiled program's time goes, by the parts that the code names with `jax.named_scope`."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

OPTIMISER = "optimiser"
# A part's name as operations carry it, also inside `jvp(...)` and `transpose(...)`.
PARTS = (
    "encoder",
    "dynamics",
    "critics",
    "policy",
    "termination",
    "targets",
    "predictors",
    "reward",
    "planner",
    "replay",
    OPTIMISER,
    "averages",
)
OTHER = "everything else"
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = ")
_CONTAINER = re.compile(r" (?:while|call|conditional|parameter|constant|tuple|get-tuple-element|bitcast)\(")
_OPERAND = re.compile(r"%([\w.-]+)")
_SCOPE = re.compile(rf"(?<![\w-])({'|'.join(PARTS)})(?![\w-])")


class Share(NamedTuple):
    """A part's milliseconds, forwards and in gradients' backward pass."""

    part: str
    forward_ms: float
    backward_ms: float

    @property
    def total_ms(self) -> float:
        return self.forward_ms + self.backward_ms


def profile(call: Callable[[], object], program: str) -> list[Share]:
    """Run `call` once under JAX's profiler; its parts, the longest first.

    Times are summed over the device's threads. An operation that the compiler fused out of several parts counts for the
    one that most of its instructions are from, and one that it left without a name for its neighbours' part.

    Args:
        call: runs the compiled program and waits for it.
        program: the program's text, `compiled.as_text()`.
    """
    origins = operation_parts(program)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        events = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
        spent: Counter[tuple[str, bool]] = Counter()
        for plane in events.planes:
            for line in plane.lines:
                for event in line.events:
                    operation = dict(event.stats).get("hlo_op")
                    if operation in origins:
                        spent[origins[operation]] += event.duration_ns
    shares = [Share(part, spent[part, False] / 1e6, spent[part, True] / 1e6) for part in (*PARTS, OTHER)]
    return sorted((share for share in shares if share.total_ms), key=lambda share: -share.total_ms)


def operation_parts(program: str) -> dict[str, tuple[str, bool]]:
    """Of each operation in a program's text, the part it belongs to and whether it is of a backward pass.

    Loops and calls are left out: what they contain has times of its own.
    """
    inside: dict[str, Counter] = defaultdict(Counter)
    operations: dict[str, tuple[str, bool]] = {}
    calls: dict[str, str] = {}
    operands: dict[str, list[str]] = {}
    computation = ""
    for line in program.splitlines():
        opens = _COMPUTATION.match(line)
        instruction = _INSTRUCTION.match(line)
        if opens:
            computation = opens[1]
        elif instruction and not _CONTAINER.search(line):
            head, _, about = line.partition(", metadata=")
            name = re.search(r'op_name="([^"]*)"', about)
            operations[instruction[1]] = _origin(name[1] if name else "")
            inside[computation][operations[instruction[1]]] += 1
            operands[instruction[1]] = _OPERAND.findall(head)[1:]
            fused = re.search(r"calls=%?([\w.-]+)", line)
            if fused:
                calls[instruction[1]] = fused[1]
    parts = {
        name: _most(inside[calls[name]]) if inside.get(calls.get(name, "")) else own for name, own in operations.items()
    }
    return _inherited(parts, operands)


def _inherited(parts: dict[str, tuple[str, bool]], operands: dict[str, list[str]]) -> dict[str, tuple[str, bool]]:
    """The compiler strips some operations of their names: these count for those who use their result, or feed them.

    What feeds the optimiser is a gradient and counts for the part that it comes from, if any, else for the optimiser.
    """
    users: dict[str, list[str]] = defaultdict(list)
    for name, given in operands.items():
        for operand in given:
            users[operand].append(name)
    nameless = {name for name, (part, _) in parts.items() if part == OTHER}
    gradients = {name for name in nameless if any(parts[user][0] == OPTIMISER for user in users[name])}
    for neighbours in (users, operands, users, operands):
        found = {
            name: _most(Counter(parts[other] for other in neighbours.get(name, ()) if other in parts) or Counter([own]))
            for name, own in parts.items()
            if own[0] == OTHER and not (neighbours is users and name in gradients)
        }
        parts = parts | found
    owners = {name: parts[name][0] for name in gradients}
    return parts | {
        name: (OPTIMISER, False) if owner in (OPTIMISER, OTHER) else (owner, True) for name, owner in owners.items()
    }


def _origin(name: str) -> tuple[str, bool]:
    found = _SCOPE.findall(name)
    return (found[-1] if found else OTHER, "transpose(" in name)


def _most(origins: Counter) -> tuple[str, bool]:
    """The commonest origin, a named part before none."""
    return max(origins, key=lambda origin: (origin[0] != OTHER, origins[origin]))
