"""Answers as records: what is printed, what a notebook draws, what JSON has."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bua_jax.alignment.answer import Description, NextBehaviour, NextDay
from bua_jax.alignment.ask import Bua
from bua_jax.basics.errors import ConfigError
from bua_jax.events.histories import People
from bua_jax.events.schema import History

TEXTS = {"summary": "likes <b>news</b> & 'tea'"}
NEXT = NextBehaviour("pay", {"read <news>": 0.25, "pay": 0.7, "run": 0.05}, TEXTS, "s")
EVENTS = (
    {"time": "06:00", "behaviour": "it's <new>", "place": "L1"},
    {"time": "18:30", "behaviour": "pay", "place": "caf\u00e9 'x'"},
)


def parsed(answer) -> str:
    """The HTML's text; it must be well-formed, or a name has got out of its place."""
    root = ET.fromstring(f"<div>{answer._repr_html_()}</div>")
    return "".join(root.itertext())


def test_a_prediction_shows_its_likeliest_labels() -> None:
    assert NEXT.likely(2) == [("pay", 0.7), ("read <news>", 0.25)]
    assert str(NEXT) == "pay 70 %, read <news> 25 %, run 5 %"
    assert NEXT.record["probabilities"] == {"read <news>": 0.25, "pay": 0.7, "run": 0.05}
    said = parsed(NEXT)
    assert said.index("pay70.0 %") < said.index("read <news>25.0 %")
    assert TEXTS["summary"] in said


def test_a_day_is_drawn_at_its_hours() -> None:
    day = NextDay("Friday", EVENTS, 0, TEXTS, "g", NEXT)
    assert str(day) == "Friday\n06:00 | L1 | it's <new>\n18:30 | caf\u00e9 'x' | pay"
    assert re.findall(r"left:([0-9.]+)%", day._repr_html_()) == ["25.00", "77.08"]
    said = parsed(day)
    assert "06:00 | L1 | it's <new>" in said
    assert "pay70.0 %" in said
    assert list(day.record) == ["prediction", "probabilities", *list(plain(day).record)]
    assert json.loads(json.dumps(day.record))["events"] == list(EVENTS)
    assert parsed(NextDay("Friday", (), 0, {}, "g")).startswith("Friday")


def plain(day: NextDay) -> NextDay:
    return NextDay(day.weekday, day.events, day.invalid_pieces, day.understanding, day.signature)


def test_a_description_is_its_texts() -> None:
    one = Description(TEXTS, "s")
    assert str(one) == "summary: likes <b>news</b> & 'tea'"
    assert parsed(one) == "summarylikes <b>news</b> & 'tea'"
    assert one.record == {"understanding": TEXTS, "signature": "s"}


ONE = History(*(np.zeros(1, np.int32) for _ in range(6)), gap=np.zeros(1, bool))


@pytest.mark.parametrize("wrong", [People(["anna"], [ONE], [], []), ONE, "anna", ["anna"], [[ONE]]])
@pytest.mark.parametrize("ask", ["predict", "generate", "describe_all"])
def test_what_is_no_list_of_histories_is_said(wrong, ask: str) -> None:
    bua = object.__new__(Bua)  # it is said before anything of a model is needed
    with pytest.raises(ConfigError, match="asked about a list of histories"):
        getattr(bua, ask)(wrong)


def test_help_says_what_comes_back() -> None:
    about = Bua.__doc__ or ""
    for answer in (Description, NextBehaviour, NextDay):
        assert answer.__name__ in about
        names = {field.name for field in dataclasses.fields(answer)} - {
            "signature",
            "invalid_pieces",
        }
        assert all(name in about for name in names)
