"""Which values a config field may have: ranges and tables as data, each saying in words what is legal."""

import ast
import functools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bua_jax.basics.errors import ConfigError


class Legal(Protocol):
    """What a field may be."""

    def wrong(self, value: Any) -> str:
        """What is wrong with `value`, to be read after `NAME=VALUE`; empty if nothing is."""


LARGEST_WHOLE, LARGEST_REAL = 2**31 - 1, 1e9
"""What is always too much: int32 ends there, and float32 soon loses such numbers."""


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int = LARGEST_WHOLE

    def wrong(self, value: Any) -> str:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and self.least <= value <= self.most:
            return ""
        bounded = self.most < LARGEST_WHOLE or (whole and value > self.most)
        until = f" to {self.most}" if bounded else ""
        return _expected(value, f"a whole number from {self.least}{until}")


@dataclass(frozen=True)
class Real:
    """A finite number between two bounds, which are legal unless `above` or `below` says otherwise."""

    least: float = -LARGEST_REAL
    most: float = LARGEST_REAL
    above: bool = False  # `least` itself is not legal
    below: bool = False  # `most` itself is not legal

    def wrong(self, value: Any) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number:  # NaN is in no order
            low = value > self.least if self.above else value >= self.least
            high = value < self.most if self.below else value <= self.most
            if low and high:
                return ""
        large = number and math.isfinite(value) and abs(value) > LARGEST_REAL
        bounds = []
        if self.least > -LARGEST_REAL or large:
            bounds.append(f"{'above' if self.above else 'from'} {self.least:g}")
        if self.most < LARGEST_REAL or large:
            bounds.append(f"{'below' if self.below else 'to'} {self.most:g}")
        return _expected(value, " ".join(["a finite number", *bounds]))


@dataclass(frozen=True)
class OneOf:
    """An entry of a table, whose keys are the legal values."""

    table: Collection[Any]

    def wrong(self, value: Any) -> str:
        # Python's True is in (0, 1), and no string is of another type.
        if any(value == entry and type(value) is type(entry) for entry in self.table):
            return ""
        return f" is none of {_listed(self.table)}"


@dataclass(frozen=True)
class SomeOf:
    """A tuple of distinct entries of a table, at least one."""

    table: Collection[str]

    def wrong(self, value: Any) -> str:
        if not isinstance(value, tuple) or not value:
            return f": expected a tuple with at least one of {_listed(self.table)}"
        unknown = [entry for entry in value if entry not in self.table]
        if unknown:
            return f": {unknown[0]!r} is none of {_listed(self.table)}"
        return "" if len(set(value)) == len(value) else " names one of them twice"


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def wrong(self, value: Any) -> str:
        return "" if isinstance(value, bool) else _expected(value, "True or False")


@dataclass(frozen=True)
class Text:
    """Any text of one line; empty where the field allows it."""

    empty: bool = True

    def wrong(self, value: Any) -> str:
        good = isinstance(value, str) and "\n" not in value and "\0" not in value
        if good and (value or self.empty):
            return ""
        return _expected(value, "text of one line" + ("" if self.empty else " that is not empty"))


@dataclass(frozen=True)
class Read:
    """A value of a type that a reader takes; its error says what is legal."""

    reader: Callable[[Any], Any]
    kind: type

    def wrong(self, value: Any) -> str:
        if not isinstance(value, self.kind) or isinstance(value, bool):
            return _expected(value, f"a value of type {self.kind.__name__}")
        try:
            self.reader(value)
        except ConfigError as error:
            return f": {error}"
        return ""


def keys_of(module: str, table: str) -> tuple[Any, ...]:
    """The keys of a table of the package (of a tuple its entries), read from the source of its module.

    module: `training.losses`. What computes imports jax, for which a wrong value need not wait. Raises
    `LookupError` where the module has no such table, or one whose keys are not all written out.
    """
    for node in _tree(module).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        names = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(name, ast.Name) and name.id == table for name in names):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else None
            found = getattr(node.value, "elts", []) if keys is None else keys
            if found and all(isinstance(one, ast.Constant) for one in found):
                return tuple(one.value for one in found if isinstance(one, ast.Constant))
    raise LookupError(f"{module} has no table {table} whose keys are written out.")


@functools.cache
def _tree(module: str) -> ast.Module:
    path = Path(__file__).parents[1] / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _expected(value: Any, expected: str) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    what = " is negative" if number and value < 0 else ""
    return f"{what}: expected {expected}"


def _listed(table: Collection[Any]) -> str:
    return ", ".join(map(str, table))
