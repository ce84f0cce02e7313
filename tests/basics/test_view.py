"""What a step sees of a config: what it declared, and nothing else."""

import copy
import json
import pickle

import pytest
from ml_collections import ConfigDict

from bua_jax.basics.config import View, plain, settings
from bua_jax.basics.errors import UndeclaredError

CONFIG = ConfigDict({"seed": 1, "seeds": 2, "a": {"b": {"c": 3, "d": 4}, "e": (5, 6)}})


def view(*fields: str) -> View:
    return View(CONFIG, fields, "The step x")


def test_declared_fields_have_their_values() -> None:
    seen = view("seed", "a.b.c")
    assert (seen.seed, seen["seed"], seen.a.b.c, seen.a["b"].c) == (1, 1, 3, 3)


def test_a_whole_part_can_be_listed() -> None:
    part = view("a.b").a.b
    assert part.to_dict() == {"c": 3, "d": 4} == dict(part) == {**part} == dict(part.items())
    assert list(part) == ["c", "d"]
    assert "c" in part
    assert (part.get("d"), part.get("none", 7)) == (4, 7)
    assert view("a").a.b.to_dict() == {"c": 3, "d": 4}


@pytest.mark.parametrize(
    ("fields", "read", "named"),
    [
        (("seed",), lambda v: v.a, "a"),
        (("seed",), lambda v: v.seeds, "seeds"),  # a prefix of a name is no part
        (("a.b.c",), lambda v: v.a.b.d, "a.b.d"),
        (("a.b.c",), lambda v: v.a.e, "a.e"),
        (("a.b.c",), lambda v: v.a.b.to_dict(), "a.b"),
        (("a.b.c",), lambda v: {**v.a.b}, "a.b"),
        (("a.b.c",), lambda v: v.a.b.items(), "a.b"),
        (("a.b.c",), lambda v: "c" in v.a.b, "a.b"),
        (("a.b.c",), lambda v: v.a.b.get("d"), "a.b"),
        (("a.b.c",), lambda v: list(v.a.b), "a.b"),
        (("seed", "a.b"), lambda v: v.to_dict(), "the whole config"),
        (("seed", "a.b"), lambda v: v.get_ref("seed"), "get_ref"),
        (("seed", "a.b"), lambda v: v.a.copy_and_resolve_references(), "a.copy_and"),
        ((), lambda v: v.seed, "seed"),
        (("a.b.c",), lambda v: v["a.b.d"], "a.b.d"),
        (("a.b.c",), lambda v: v.a["b.d"], "a.b.d"),
        (("a.b.c",), lambda v: v.a.b.values(), "a.b.values"),
        (("a.b.c",), lambda v: hasattr(v, "seed"), "seed"),
        (("a.b.c",), lambda v: getattr(v, "seed", 7), "seed"),
        (("a.b.c",), lambda v: ConfigDict(v), "the whole config"),
        (("a.b.c",), lambda v: dict(**v.a), "a"),
        (("a.b.c",), lambda v: copy.copy(v).a.e, "a.e"),
        (("a.b.c",), lambda v: json.dumps(v.a, default=lambda one: one.to_dict()), "a"),
        (("a.b.c",), lambda v: plain(v), "the whole config"),
        (("a.b.c",), lambda v: settings(v, ["a.b.c", "seed"]), "seed"),
        (("seed", "a"), lambda v: v.narrowed(["seed", "a.b"], "The step x").a.e, "a.e"),
    ],
)
def test_what_was_not_declared_is_an_error(fields, read, named: str) -> None:
    with pytest.raises(UndeclaredError, match=f"The step x reads {named}") as caught:
        read(view(*fields))
    assert all(field in str(caught.value) for field in fields)


def test_a_view_is_not_written() -> None:
    with pytest.raises(TypeError, match=r"read, not written: a\.e"):
        view("a").a.e = 1
    assert CONFIG.a.e == (5, 6)


def test_a_view_can_be_copied_and_sent() -> None:
    for other in (copy.deepcopy(view("a.b")), pickle.loads(pickle.dumps(view("a.b")))):
        assert other.a.b.c == 3
        with pytest.raises(UndeclaredError):
            _ = other.seed
