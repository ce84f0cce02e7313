import json

import numpy as np
import pytest

from bua_jax.events.card import card_markdown, data_card, hour_by_weekday, write_card
from tests.events.stores import store_of


def small_store(**fields):
    one = [(0, 14, 5, 0), (0, 15, 5, 0), (1, 14, 6, 1), (9, 47, -1, 2, True)]
    two = [(0, s, 5, 0) for s in range(11)] + [(1, 3, 5, 1)]
    return store_of([one, two], split=[0, 2], **fields)


def test_counts_by_hand() -> None:
    card = data_card(small_store())
    assert (card["users"], card["events"], card["behaviours"], card["gaps"]) == (2, 16, 3, 1)
    assert card["days_spanned"] == 10
    assert card["events_per_user"] == {"mean": 8.0, "median": 8.0, "min": 4, "max": 12}
    assert card["events_per_active_day"] == {"mean": 3.2, "median": 1.0, "min": 1, "max": 11}
    assert card["areas_per_user"] == {"mean": 1.5, "median": 1.5, "min": 1, "max": 2}
    assert card["splits"]["test"] == {
        "users": 1,
        "events": 12,
        "prediction_windows": 2,
        "users_with_prediction_window": 1,
        "generation_windows": 1,
    }
    assert card["splits"]["validation"]["users"] == 0
    assert card["groups"]["head"] == {"chat": 0.5, "pay": 0.25, "subway": 0.25}


def test_heat_map_counts_by_hand() -> None:
    counts = hour_by_weekday(small_store())
    assert counts.shape == (7, 24)
    assert counts.sum() == 16
    assert counts[0, 7] == 2  # slots 14 and 15 of person one, Monday 07:00
    assert counts[0, 0] == 2
    assert counts[1, 7] == 1
    assert counts[2, 23] == 1  # day 9 is a Wednesday


def test_hours_at_hour_resolution() -> None:
    store = store_of([[(0, 14, 1, 0), (6, 23, 1, 0)]], slots=24)
    assert np.argwhere(hour_by_weekday(store)).tolist() == [[0, 14], [6, 23]]


def test_what_does_not_apply_is_null() -> None:
    card = data_card(store_of([[(0, 1, -1, 0)]], has_places=False, split=[0]))
    assert card["areas_per_user"] is None
    assert "| places | none |" in card_markdown(card)


def test_files(tmp_path) -> None:
    store = small_store()
    card = write_card(store, tmp_path / "data")
    assert json.loads((tmp_path / "data" / "card.json").read_text()) == card
    assert (tmp_path / "data" / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "data" / "card.md").read_text()
    assert "heatmap.png" in text
    assert store.fingerprint in text
    assert "| head | chat | 50.00 % |" in text
    assert f"| this one | {card['users']} | {card['behaviours']} | {card['events']} |" in text
    assert "| Tencent Dataset | 2000 | 14 | 320516 |" in text
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "card.json",
        "card.md",
        "heatmap.png",
    ]


def test_the_picture_shows_the_counts() -> None:
    from bua_jax.events.card import heat_map

    counts = hour_by_weekday(small_store())
    axes = heat_map(counts).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), counts)
    assert axes.get_yticklabels()[0].get_text() == "Mon"
    assert axes.get_xlabel() == "hour of day"


@pytest.mark.parametrize("events", [1, 3])
def test_a_card_of_almost_nothing(tmp_path, events: int) -> None:
    card = write_card(store_of([[(0, i, 1, 0) for i in range(events)]], split=[2]), tmp_path)
    assert card["groups"]["tail"] == {"chat": 0.0, "pay": 0.0, "subway": 0.0}
