"""A model as the judge: what it is asked, what of its answers counts, and planted leanings undone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bua_jax.evaluation.rating.families import families, kin
from bua_jax.evaluation.rating.items import Item
from bua_jax.evaluation.rating.judge import (
    CHOSEN,
    Judge,
    Pair,
    answer_form,
    item_pairs,
    preference_questions,
    score_questions,
)
from bua_jax.evaluation.rating.packets import ANCHORS, CRITERIA
from bua_jax.evaluation.rating.spoilt import RUNGS, Spoilt, spoil
from bua_jax.evaluation.rating.verdicts import ALL, report, verdicts
from bua_jax.evaluation.report import render
from bua_jax.evaluation.understanding.claims import read
from bua_jax.evaluation.understanding.ladder import LADDER, STRENGTHS, Source
from bua_jax.interop.openai import Chat
from bua_jax.interop.openai_host import Host, Limits
from tests.evaluation.rating.leaning import Spoken, leaning, number_of
from tests.evaluation.understanding.described import described
from tests.support.api import Do, serving

LIMITS = Limits(concurrency=8, requests_per_minute=60_000, tokens=10_000_000, backoff=0.01)
SPOILT_BY = {
    1: 0.2,
    2: 0.2,
    0: 0.4,
    3: 0.4,
    9: 0.6,
    4: 0.6,
    5: 0.8,
    6: 0.8,
}  # by last digit; else 1.0


def items(count: int, *, longer: bool = False) -> list[Item]:
    """Texts of two sources: `one` is better in the first 70 %, and longer but for the last digits 8 and 9."""
    made = []
    for i in range(count):
        quality = ("good", "poor") if 10 * i < 7 * count else ("poor", "good")
        more = ("", " and so on and on") if i % 10 in (8, 9) else (" and so on and on", "")
        pair = zip(("one", "two"), quality, more, strict=True)
        texts = {source: f"no {i} {good}{rest * longer}" for source, good, rest in pair}
        made.append(Item(f"u{i}", (f"Mon 08:00 L1 pay {i}",), "pay", texts))
    return made


def tried(count: int) -> list[Spoilt]:
    """Pairs whose true text is the good one; by last digits what is spoilt more."""
    return [
        Spoilt(i, f"no {i} good", f"no {i} poor", LADDER[i % 4].name, SPOILT_BY.get(i % 10, 1.0))
        for i in range(count)
    ]


def judged(chat: Any, some: list[Item], spoilt: list[Spoilt]) -> dict[str, Any]:
    """What `verdicts` makes of what a chat answers, with what the page needs."""
    judge, pairs = Judge(chat), item_pairs(some)
    known = [Pair(some[one.item], one.text, one.spoilt) for one in spoilt]
    scores, chosen = judge.score(some), judge.choose([*pairs, *known])
    said = verdicts(some, scores, chosen[: len(pairs)], spoilt, chosen[len(pairs) :], 0)
    about = {"model": "fake", "host": "127.0.0.1", "answered": [*judge.answered]}
    return {**said, "judge": about, "kin": [], "counts": dict(judge.counts)}


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_planted_leanings_are_found_and_undone() -> None:
    """Of each ten pairs the judge takes the first text shown of one, the worse of two, the longer of two.

    The better text is `one`'s in 70 of 100 items. Of spoilt texts none is longer: there it takes the second
    of two. So it is right in 0.5 + 0.3 / 2 = 0.65. Of the 80 items whose longer text is `one`'s, that wins
    49 (5 of ties, 6 wrongly, 10 for its length, 28 as the better one), of the 20 others 7.
    """
    answer = leaning(
        lambda i: i % 10 == 0, lambda i: i % 10 in (1, 2), longer=lambda i: i % 10 in (3, 9)
    )
    said = judged(Spoken(answer), items(100, longer=True), tried(100))
    assert said["counts"] == {"asked": 600, "asked again": 0, "left out": 0}
    level = 1 / (1 + np.exp(-(logit(49 / 80) + logit(7 / 20)) / 2))
    expected = {
        "raw": 0.56,
        "at_equal_lengths": level,
        "undone": (0.56 + 0.65 - 1) / 0.3,
        "both": (level + 0.65 - 1) / 0.3,
    }
    for found in said["criteria"].values():
        assert found["unusable"] == ""
        assert found["right"]["value"] == pytest.approx(0.65)
        assert found["position"] == pytest.approx({"changes": 0.2, "first": 0.1, "second": 0.1})
        assert found["longer_by"] == 5
        assert found["longer_wins"]["value"] > 0.6
        pair = found["pairs"]["one - two"]
        assert pair["items"] == 100
        for name, value in expected.items():
            # the prior of the regression moves it by less than 0.003, and that by 1 / 0.3 where undone
            assert pair[name]["value"] == pytest.approx(value, abs=0.01), name
            assert pair[name]["low"] < value < pair[name]["high"]
        hard = [one["both"] for one in pair["as_hard_as"]]  # right in 0, 0.5, 0.75, 1, 1
        assert hard[:2] == [None, None]
        assert hard[2:] == pytest.approx([(level + 0.75 - 1) / 0.5, level, level], abs=0.01)
        wider = [pair[name]["high"] - pair[name]["low"] for name in ("raw", "undone")]
        assert wider[1] > wider[0]
        table = found["calibration"][ALL]
        assert [one["strength"] for one in table] == [*STRENGTHS]
        assert [one["pairs"] for one in table] == [20] * 5
        assert [one["right"] for one in table] == [0, 0.5, 0.75, 1, 1]
    means = said["scores"]["criteria"]["rationality"]["sources"]
    assert means["one"]["mean"]["value"] == pytest.approx(3 * 0.7 + 1 * 0.3)
    page = render(report(said))
    assert "its errors are known and undone in rationality and interpretability" in page
    assert "70.0 (" in page
    assert "unusable" not in page


FALLING = [one._replace(strength=round(1.2 - one.strength, 1)) for one in tried(40)]
DROPPED = [
    Spoilt(i, f"no {i} good and so on", f"no {i} good", "drop claims", 0.6) for i in range(40)
]


@pytest.mark.parametrize(
    ("answer", "spoilt", "why"),
    [
        (leaning(lambda i: True), tried(40), "is right about true and spoilt texts in 50 % ("),
        (leaning(wrong=lambda i: True), tried(40), "is right about true and spoilt texts in 0 % ("),
        (leaning(longer=lambda i: True), tried(40) + DROPPED, "true and spoilt texts in 50 % ("),
        (leaning(wrong=lambda i: i % 10 in (1, 2)), FALLING, "not right more often where more"),
        (leaning(), [], "no text that it was to be tried on could be spoilt"),
        (lambda asked: "Surely!", tried(40), "or it answered to none of them"),
    ],
)
def test_a_judge_that_is_of_no_use(answer: Any, spoilt: list[Spoilt], why: str) -> None:
    said = judged(Spoken(answer), items(40), spoilt)
    found = said["criteria"]["rationality"]
    assert why in found["unusable"]
    pair = found["pairs"]["one - two"]
    assert pair["undone"] is None
    assert pair["both"] is None
    assert (pair["raw"] is None) == ("none of them" in why)
    shown = report(said)
    assert any(f"unusable in rationality: {found['unusable']}" in one for one in shown.warnings)
    assert "it is of no use" in shown.verdict[0]
    json.dumps(said, allow_nan=False)
    render(shown)


def test_answers_that_are_none_are_asked_again_and_counted(tmp_path: Path) -> None:
    """Of item 5 the first answer is none, of 6 all about the pair, of 7 all scores."""

    def plan(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        again, number = "could not be read" in asked, number_of(asked)
        scored = "Score it" in asked
        if (number == 5 and not again) or (number == 6 and not scored):
            return Do(text="Surely! Text A.")
        if number == 7 and scored:
            return Do(text='{"rationality": 4, "interpretability": 2}')
        return Do()

    with serving(plan, leaning()) as api:
        host, options = Host(api.url, "fake", "", "judge"), {"max_tokens": 20}
        chat = Chat(host, tmp_path / "a.sqlite", "127.0.0.1", LIMITS, options, "prompt")
        said = judged(chat, items(10), [])
    assert said["left_out"] == {"items of scores": 1, "pairs": 1, "spoilt pairs": 0}
    assert said["scores"]["items"] == 9
    assert said["criteria"]["rationality"]["pairs"]["one - two"]["items"] == 9
    assert said["counts"] == {"asked": 40, "asked again": 4 + 2 + 2, "left out": 2 + 2}
    assert any("asked for: 1 items of scores, 1 pairs. " in one for one in report(said).warnings)


@pytest.mark.parametrize(
    ("kind", "fine", "wrong"),
    [
        ("scores", range(len(ANCHORS)), (len(ANCHORS), -1, True, "2", 1.5)),
        ("preferences", CHOSEN, ("a", "", 1, None)),
    ],
)
def test_forms_are_strict(kind: str, fine: Any, wrong: Any) -> None:
    form = answer_form(kind)
    for value in fine:
        said = dict.fromkeys(CRITERIA, value)
        form.model_validate(said, strict=True)
    for value in wrong:
        with pytest.raises(ValidationError):
            form.model_validate({**said, "rationality": value}, strict=True)


def test_questions_are_blind_and_in_both_orders() -> None:
    """No id, no source, no Markdown; the rubric of the packets; the same but for the texts' order."""
    texts = {"mine": "## Pays\n- **often**", "yours": "Walks."}
    some = [Item("u77", ("Mon 08:00 L1 pay",), "pay", texts)]
    asked = score_questions(some) + preference_questions(item_pairs(some))
    assert len(asked) == 4
    for question in asked:
        assert not any(word in question for word in ("u77", "mine", "yours", "#", "*"))
        assert all(text in question for text in (*CRITERIA, *CRITERIA.values(), *ANCHORS))
        assert "Mon 08:00 L1 pay" in question
    assert "Text A: Pays often\nText B: Walks." in asked[2]
    assert "Text A: Walks.\nText B: Pays often" in asked[3]
    assert sorted(asked[2]) == sorted(asked[3])


def test_spoilt_texts_are_spread_over_all_rungs() -> None:
    """Each rung that leaves something, none twice of one item; a smaller number begins with the same ones."""
    some = described()
    sources = [
        Source(read(some.store.catalogue, text), one, other)
        for text, one, other in zip(some.texts, some.about, some.others, strict=True)
    ]
    found = spoil(sources, some.names, 100)
    assert len(found) == 100
    assert spoil(sources, some.names, 40) == found[:40]
    rungs = {(one.corruption, one.strength) for one in found}
    assert rungs == {(one.name, strength) for one, strength in RUNGS} - {("drop claims", 1.0)}
    assert len({(one.item, one.spoilt) for one in found}) == 100
    for one in found:
        assert one.text == some.texts[one.item]
        assert one.spoilt != one.text
    alone = [source._replace(other="") for source in sources[:1]]
    assert not any(one.corruption == "swap the person" for one in spoil(alone, ["0"], 25))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", {"qwen"}),
        ("qwq-32b", {"qwen"}),
        ("openai/gpt-4o-2024-08-06", {"gpt"}),
        ("o3-mini", {"gpt"}),
        ("o5", {"gpt"}),
        ("codegemma-7b", {"gemini"}),
        ("chatglm3-6b", {"glm"}),
        ("deepseek-chat", {"deepseek"}),
        ("DeepSeek-R1-Distill-Qwen-7B", {"deepseek", "qwen"}),
        ("meta-llama/Llama-3.1-8B", {"llama"}),
        ("tinyllama", {"llama"}),
        ("google/gemma-2-9b", {"gemini"}),
        ("acme/wonder-7b", {"wonder"}),
        ("human", {"human"}),
    ],
)
def test_families_by_name(name: str, family: set[str]) -> None:
    assert families(name) == family


def test_kin_are_named() -> None:
    others = {"the run's teacher": "qwen-max", "the writer of 'bua'": "nano"}
    (said,) = kin("Qwen3-32B", [], others)
    assert "'Qwen3-32B' and the run's teacher, 'qwen-max', are of one family (qwen)" in said
    assert kin("claude-sonnet", ["claude-sonnet-4"], others) == []
    assert len(kin("our-judge", ["qwen3-8b"], others)) == 1
