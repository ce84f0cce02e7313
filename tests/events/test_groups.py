import numpy as np

from bua_jax.events.groups import behaviour_groups, training_shares
from tests.events.stores import store_of


def events(counts: tuple[int, int, int]) -> list[tuple]:
    labels = np.repeat(np.arange(3), counts)
    return [(i, 0, 1, int(label)) for i, label in enumerate(labels)]


def test_groups_come_from_training_users_alone() -> None:
    store = store_of(
        [events((960, 31, 9)), events((0, 0, 5000)), events((0, 5000, 0))], split=[0, 1, 2]
    )
    np.testing.assert_allclose(training_shares(store), [0.96, 0.031, 0.009])
    assert behaviour_groups(store) == {"head": [0], "medium": [1], "tail": [2]}


def test_borders_of_the_groups() -> None:
    """Exactly 5 % and exactly 1 % are medium (head > 5 %, medium 1-5 %)."""
    store = store_of([events((94, 5, 1))], split=[0])
    assert behaviour_groups(store) == {"head": [0], "medium": [1, 2], "tail": []}
    store = store_of([events((940, 51, 9))], split=[0])
    assert behaviour_groups(store) == {"head": [0, 1], "medium": [], "tail": [2]}


def test_a_behaviour_unseen_in_training_is_tail() -> None:
    store = store_of([events((10, 10, 0)), events((0, 0, 10))], split=[0, 2])
    assert behaviour_groups(store)["tail"] == [2]
