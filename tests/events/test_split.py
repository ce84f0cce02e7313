import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bua_jax.basics.errors import DataError
from bua_jax.events.split import sorted_ids, split_users


def test_the_rule_for_integer_ids() -> None:
    """The yardstick permutes integers; text order would give another split."""
    ids = [str(i) for i in (101, 9, 33, 2, 1000, 7, 8, 55, 60, 71, 12)]
    permuted = np.random.default_rng(42).permutation(sorted(int(i) for i in ids))
    expected = {str(i): 0 for i in permuted[:8]} | {str(permuted[8]): 1}
    expected |= {str(i): 2 for i in permuted[9:]}
    assert split_users(ids) == expected
    by_text = np.random.default_rng(42).permutation(sorted(ids))
    assert [str(i) for i in permuted] != list(by_text)


def test_ids_that_are_not_all_integers_sort_as_text() -> None:
    assert sorted_ids(["10", "9", "2"]) == ["2", "9", "10"]
    assert sorted_ids(["10", "9", "a"]) == ["10", "9", "a"]


@settings(max_examples=50, deadline=None)
@given(
    ids=st.sets(st.text("abc123", min_size=1, max_size=6), min_size=3, max_size=60), data=st.data()
)
def test_the_split_does_not_depend_on_the_order_of_ids(ids, data) -> None:
    ids = [f"x{i}" for i in ids]
    split = split_users(ids)
    assert split == split_users(data.draw(st.permutations(ids)))
    counts = np.bincount(list(split.values()), minlength=3)
    n = len(ids)
    assert counts.tolist() == [int(0.8 * n), int(0.9 * n) - int(0.8 * n), n - int(0.9 * n)]


def test_another_seed_is_another_split() -> None:
    ids = [str(i) for i in range(100)]
    assert split_users(ids, 1) != split_users(ids, 2)


def test_two_people_are_too_few() -> None:
    with pytest.raises(DataError, match="2 people"):
        split_users(["a", "b"])


def test_renewed_ids_are_not_split() -> None:
    ids = [f"renewed-{i:016x}" for i in range(10)]
    with pytest.raises(DataError, match="renewed"):
        split_users(ids)
    assert split_users(["renewed-soon", "b", "c"])  # a name that only looks like one
