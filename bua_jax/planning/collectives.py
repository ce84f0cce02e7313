"""What devices send each other in a compiled program, read from the text of its HLO."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_COLLECTIVE = re.compile(rf"^(.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_BELOW = re.compile(r"compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
# A collective may stand in several pieces: its start, and the rest fused with what runs meanwhile.
_CHAIN = re.compile(r'channel_id=(\d+).*chain_id="(\d+)"')
_INTEGER = re.compile(r"\b[su]\d+\[\]\S* constant\((\d+)\)")


@dataclass(frozen=True)
class Collective:
    """One instruction; bytes are of one execution and one device.

    payload: the whole array (an all-gather's result, a reduce-scatter's operand); wire: what a device
    sends in a ring.
    """

    kind: str
    devices: int  # that take part
    times: int  # executions per step
    payload: int
    wire: float


def collectives(text: str, devices: int) -> tuple[list[Collective], int]:
    """The collectives of a program for `devices` devices, and how many loops have no known length.

    What stands in a loop runs as often as the loop: its trip count is the compiler's note, or the
    constant that its condition compares with. A loop without either counts as one round.
    """
    computations, entry = _computations(text)
    found: list[Collective] = []
    seen: set[tuple[str, ...]] = set()
    unknown = 0

    def walk(name: str, times: int) -> None:
        nonlocal unknown
        for line in computations[name].values():
            one = _collective(name, line, times, devices)
            chain = _CHAIN.search(line)
            if one is not None and not (chain and chain.groups() in seen):
                found.append(one)
            if one is not None and chain:
                seen.add(chain.groups())
            if re.search(r" async-(update|done)\(", line):
                continue  # names what its start has called
            for how, called in _calls(line):
                rounds = times
                if how == "body":
                    trips = _trip_count(line, computations)
                    unknown += trips is None
                    rounds = times * (trips or 1)
                if called in computations:
                    walk(called, rounds)

    walk(entry, 1)
    return [one for one in found if one.devices > 1], unknown


def _computations(text: str) -> tuple[dict[str, dict[str, str]], str]:
    """({computation: {instruction: its text}}, name of the entry)."""
    found: dict[str, dict[str, str]] = {}
    entry = current = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = header[2]
            found[current] = {}
            entry = current if header[1] else entry
        elif current and (instruction := _INSTRUCTION.match(line)):
            found[current][instruction[1]] = re.sub(r"/\*.*?\*/", "", instruction[2])
    return found, entry


def _calls(line: str) -> Iterator[tuple[str, str]]:
    yield from _CALLED.findall(line)
    for branches in _BRANCHES.findall(line):
        yield from (("branch", name.strip(" %")) for name in branches.split(","))


def _trip_count(line: str, computations: Mapping[str, Mapping[str, str]]) -> int | None:
    noted = _TRIPS.search(line)
    if noted:
        return int(noted[1])
    called = dict(_CALLED.findall(line))
    condition = computations.get(called.get("condition", ""), {})
    for test in condition.values():
        below = _BELOW.search(test)
        bound = _INTEGER.search(condition.get(below[2], "")) if below else None
        if below and bound:
            counter = re.search(r"index=(\d+)", condition.get(below[1], ""))
            step = _step(computations[called["body"]], int(counter[1])) if counter else 1
            return math.ceil(int(bound[1]) / step)
    return None


def _step(body: Mapping[str, str], counter: int) -> int:
    """What a loop's body adds to an element of its state; 1, as in JAX's scans, if it does not show.

    XLA unrolls the loops in which it multiplies the parts of an array that go round: they step by 2.
    """
    state = re.search(r" tuple\((.*?)\)", list(body.values())[-1])
    name = state[1].split(",")[counter].strip(" %") if state else ""
    while copied := re.search(r" copy\(%?([\w.\-]+)\)", body.get(name, "")):
        name = copied[1]
    added = re.search(r" add\(%?([\w.\-]+), %?([\w.\-]+)\)", body.get(name, ""))
    by = _INTEGER.search(body.get(added[2], "")) if added else None
    return max(1, int(by[1])) if by else 1


def _elements(text: str) -> list[str]:
    """Top-level elements of a tuple's type."""
    found, depth = [""], 0
    for letter in text.strip()[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _bytes(text: str) -> int:
    """Of all arrays in a type."""
    return sum(
        math.prod(int(n) for n in shape.split(",") if n) * _size(kind)
        for kind, shape in _ARRAY.findall(text)
    )


def _size(kind: str) -> int:
    bits = re.search(r"\d+", kind)
    return max(1, int(bits[0]) // 8) if bits else 1


def _taking_part(line: str, devices: int) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if iota:
        return int(iota[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    return devices


def _collective(name: str, line: str, times: int, devices: int) -> Collective | None:
    """`line` of the computation `name` as a collective, if it is one."""
    match = _COLLECTIVE.match(line)
    if match is None:
        return None
    shape, kind, start = match[1], match[2], match[3]
    if start and kind != "all-reduce":
        shape = _elements(shape)[1]  # (operands, results, ...)
    if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
        size, kind, some = _bytes(shape), "reduce-scatter", _taking_part(line, devices)
    else:
        some = _taking_part(line, devices)
        size = _bytes(shape) * (some if kind == "reduce-scatter" else 1)
    share = {"all-reduce": 2 * (some - 1) / some, "collective-permute": 1.0}
    return Collective(kind, some, times, size, size * share.get(kind, (some - 1) / some))
