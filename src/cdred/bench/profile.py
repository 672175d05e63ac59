"""Profiles of compiled functions: device time per `jax.named_scope`."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

OPTIMIZER = "optimizer"
# Scopes in the names of operations, where they may be inside `jvp(...)` and `transpose(...)`.
SCOPES = (
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
    OPTIMIZER,
    "ema",
)
OTHER = "everything else"
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = ")
_CONTAINER = re.compile(r" (?:while|call|conditional|parameter|constant|tuple|get-tuple-element|bitcast)\(")
_OPERAND = re.compile(r"%([\w.-]+)")
_SCOPE = re.compile(rf"(?<![\w-])({'|'.join(SCOPES)})(?![\w-])")

# A scope, and whether the operation belongs to the backward pass.
Origin = tuple[str, bool]


class ScopeTime(NamedTuple):
    """Milliseconds of a scope in the forward and the backward pass."""

    scope: str
    forward_ms: float
    backward_ms: float

    @property
    def total_ms(self) -> float:
        return self.forward_ms + self.backward_ms


def profile(call: Callable[[], object], hlo: str) -> list[ScopeTime]:
    """Run `call` once under JAX's profiler and measure the time of every scope, longest first.

    Times are summed over the threads of the device. An operation that the compiler fused from several scopes counts for
    the one of most of its instructions; an operation without a name for the scope of its neighbours.

    Args:
        call: runs the compiled function and waits for its result.
        hlo: text of the compiled function, `compiled.as_text()`.
    """
    origins = operation_scopes(hlo)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        events = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
        durations: Counter[Origin] = Counter()
        for plane in events.planes:
            for line in plane.lines:
                for event in line.events:
                    operation = dict(event.stats).get("hlo_op")
                    if operation in origins:
                        durations[origins[operation]] += event.duration_ns
    times = [
        ScopeTime(scope, durations[scope, False] / 1e6, durations[scope, True] / 1e6) for scope in (*SCOPES, OTHER)
    ]
    return sorted((time for time in times if time.total_ms), key=lambda time: -time.total_ms)


def operation_scopes(hlo: str) -> dict[str, Origin]:
    """Map every operation of a compiled function to its scope and whether it belongs to a backward pass.

    Loops and calls are omitted: the operations that they contain are timed themselves.
    """
    instructions: dict[str, Counter] = defaultdict(Counter)
    operations: dict[str, Origin] = {}
    calls: dict[str, str] = {}
    operands: dict[str, list[str]] = {}
    computation = ""
    for line in hlo.splitlines():
        opens = _COMPUTATION.match(line)
        instruction = _INSTRUCTION.match(line)
        if opens:
            computation = opens[1]
        elif instruction and not _CONTAINER.search(line):
            head, _, metadata = line.partition(", metadata=")
            name = re.search(r'op_name="([^"]*)"', metadata)
            operations[instruction[1]] = _parse_origin(name[1] if name else "")
            instructions[computation][operations[instruction[1]]] += 1
            operands[instruction[1]] = _OPERAND.findall(head)[1:]
            fused = re.search(r"calls=%?([\w.-]+)", line)
            if fused:
                calls[instruction[1]] = fused[1]
    origins = {
        name: _most_common(instructions[calls[name]]) if instructions.get(calls.get(name, "")) else origin
        for name, origin in operations.items()
    }
    return _propagate(origins, operands)


def _propagate(origins: dict[str, Origin], operands: dict[str, list[str]]) -> dict[str, Origin]:
    """Give operations without a name the scope of those that use their result, or else of their operands.

    An operand of the optimizer is a gradient and gets the scope that it is computed from, or else the optimizer's.
    """
    users: dict[str, list[str]] = defaultdict(list)
    for name, inputs in operands.items():
        for operand in inputs:
            users[operand].append(name)
    nameless = {name for name, (scope, _) in origins.items() if scope == OTHER}
    gradients = {name for name in nameless if any(origins[user][0] == OPTIMIZER for user in users[name])}
    for neighbours in (users, operands, users, operands):
        origins = origins | {
            name: _most_common(
                Counter(origins[other] for other in neighbours.get(name, ()) if other in origins) or Counter([origin])
            )
            for name, origin in origins.items()
            if origin[0] == OTHER and not (neighbours is users and name in gradients)
        }
    scopes = {name: origins[name][0] for name in gradients}
    return origins | {
        name: (OPTIMIZER, False) if scope in (OPTIMIZER, OTHER) else (scope, True) for name, scope in scopes.items()
    }


def _parse_origin(name: str) -> Origin:
    scopes = _SCOPE.findall(name)
    return (scopes[-1] if scopes else OTHER, "transpose(" in name)


def _most_common(origins: Counter) -> Origin:
    """Return the most common origin, preferring any scope to none."""
    return max(origins, key=lambda origin: (origin[0] != OTHER, origins[origin]))
