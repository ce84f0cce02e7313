"""A teacher in the rules' place: what it is asked, what of its answers is kept, and what is paid again."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from ml_collections import ConfigDict

from bua_jax.basics.errors import ConfigError, DataError
from bua_jax.dialogue.critic import CRITERIA
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.rules import refined_summary
from bua_jax.dialogue.store import read_dialogues
from bua_jax.dialogue.tasks import Writer, understanding_rounds
from bua_jax.dialogue.teacher import Teacher, annotation_question, review_question
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation.understanding.judged import untrue
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows, sample_id, sample_windows
from bua_jax.interop.openai_page import chat_of
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.dialogues import SETS, check_teacher, say_estimate
from bua_jax.pipeline.steps import Run, ensure
from bua_jax.pipeline.windows import step_of
from tests.support.api import Do, serving
from tests.support.steps import config_of

STORE = simulated_store(12, 15, 3)
FOUND = sample_windows(prediction_windows(STORE, "train"), 4, 0)
WRITER = Writer(STORE, training_shares(STORE))
WINDOWS = [
    WRITER.window(int(FOUND.start[i]), int(FOUND.end[i]), sample_id(STORE, FOUND, i))
    for i in range(4)
]


def events_in(question: str) -> str:
    return question.partition("\nAbove are events")[0]


def last(events: str) -> str:
    """The behaviour of the last of these events."""
    return max((b for b in STORE.catalogue.behaviours if events.endswith(b)), key=len)


def by_rules(window: Window) -> str:
    return json.dumps({turn.kind: turn.answer for turn in understanding_rounds(window)})


def settings(url: str, folder: Path, **fields: Any) -> ConfigDict:
    config = config_of("scale=tiny", dialogues__annotator="teacher", **fields)
    config.teacher.update({"url": url, "model": "fake", "json_mode": "prompt"})
    config.execution.api_consent = "127.0.0.1"
    config.execution.api_cache = str(folder / "answers.sqlite")
    config.execution.api_limits.requests_per_minute = 60_000
    return config


def test_false_answers_are_asked_again_once_with_the_reasons(tmp_path: Path) -> None:
    row_of = {history_text(w.catalogue, w.history): i for i, w in enumerate(WINDOWS)}
    label = WINDOWS[1].label(WINDOWS[1].behaviours[-1])
    lie = dict.fromkeys(UNDERSTANDING, f"Frequent: {label} (99 of 40).")

    def answer(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        row, again = row_of[events_in(asked)], "An earlier answer was" in asked
        if row == 2 or (row == 1 and not again):
            return Do(text=json.dumps(lie))
        if row == 3 and not again:
            return Do(text="Surely! This person likes coffee.")
        return Do(text=by_rules(WINDOWS[row]))

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        said = teacher.annotate(WINDOWS)
        paid = len(api.calls)
        assert teacher.annotate(WINDOWS) == said
    assert len(api.calls) == paid
    assert said[2] is None
    for i in (0, 1, 3):
        assert said[i] == json.loads(by_rules(WINDOWS[i]))
    counts = {what: n / 2 for what, n in teacher.counts.items()}
    assert counts["asked"] == 4
    assert counts["asked again"] == 3
    assert counts["left out"] == counts["left out: untrue"] == 1
    assert counts["false: form"] == 1
    assert counts["false: counts"] == 3 * len(UNDERSTANDING)
    reasons = [asked for asked, *_ in api.calls if "An earlier answer was" in asked]
    assert any(f"counts of {label}: " in text for text in reasons)
    assert any("it is not in the form that was asked for" in text for text in reasons)


def test_a_review_has_issues_and_a_true_summary(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        (window,) = (w for w in WINDOWS if history_text(w.catalogue, w.history) == events_in(asked))
        said = {
            "issues": ["temporal", "hierarchy", "temporal"],
            "summary": refined_summary(window),
        }
        return Do(text=json.dumps(said))

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        reviews = teacher.review(WINDOWS, [f"Draft {i}." for i in range(4)])
    for window, review in zip(WINDOWS, reviews, strict=True):
        assert review is not None
        assert review.issues == ("hierarchy", "temporal")
        assert review.score == pytest.approx(1 - 2 / len(CRITERIA))
        assert review.refined == refined_summary(window)
    assert all(f"Draft {i}." in "".join(a for a, *_ in api.calls) for i in range(4))


@pytest.mark.parametrize(
    "issue", ["Abstraction", "abstraction (infer traits)", "1. association", "Temporal accuracy"]
)
def test_an_issue_spelt_otherwise_is_no_praise(tmp_path: Path, issue: str) -> None:
    """It is a wrong form: asked for once more, then counted and left out; of all, nothing can be made."""
    window = WINDOWS[0]
    good = json.dumps({"issues": ["temporal"], "summary": refined_summary(window)})
    bad = json.dumps({"issues": ["temporal", issue], "summary": refined_summary(window)})

    def answer(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        assert all(f'"{name}": ' in asked for name in CRITERIA)
        return Do(text=good if "Draft 0." in asked and "An earlier answer was" in asked else bad)

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        first, second = teacher.review([window] * 2, ["Draft 0.", "Draft 1."])
        with pytest.raises(
            DataError, match=r"1 of 1 answers \(1 not in the form that was asked for"
        ):
            teacher.review([window], ["Draft 1."])
    assert first is not None
    assert first.issues == ("temporal",)
    assert second is None
    assert teacher.counts["false: form"] == 3 + 2
    assert teacher.counts["left out: not in the form that was asked for"] == 1 + 1


def test_a_refusal_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in one of the rounds either; of much that is left out there is a warning, of all an error."""
    refusal = dict.fromkeys(UNDERSTANDING, "I am sorry, I cannot help with that.")
    row_of = {history_text(w.catalogue, w.history): i for i, w in enumerate(WINDOWS)}

    def answer(body: dict[str, Any], before: int) -> Do:
        row = row_of[events_in(body["messages"][0]["content"])]
        if row == 0:
            return Do(text=json.dumps(refusal))
        if row == 1:
            return Do(text=json.dumps({**json.loads(by_rules(WINDOWS[1])), "patterns": " "}))
        return Do(text="{", finish="length") if row == 2 else Do(text=by_rules(WINDOWS[3]))

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        assert [said is None for said in teacher.annotate(WINDOWS)] == [True, True, True, False]
        told = "3 of 4 answers (2 saying nothing, 1 cut at max_tokens)"
        assert f"WARNING: of the teacher {told} cannot be used" in capsys.readouterr().err
        with pytest.raises(DataError, match=r"3 of 3 answers .*config\.dialogues\.annotator=rules"):
            teacher.annotate(WINDOWS[:3])
    assert teacher.counts["false: nothing"] == 2 * (2 * 3 + 2)


def test_questions_hold_no_target_no_id_and_no_date() -> None:
    """All that follows a window may change: the questions stay byte for byte; nor do people's names leave."""
    for i, window in enumerate(WINDOWS):
        asked, start, end = annotation_question(window), int(FOUND.start[i]), int(FOUND.end[i])
        other = simulated_store(12, 15, 3)
        for column, many in ((other.behaviour, len(STORE.catalogue.behaviours)), (other.slot, 48)):
            column[end:] = (column[end:] + 1) % many
        other.location[end:] = other.location[0]
        assert (other.behaviour[end:] != STORE.behaviour[end:]).all()
        changed = Writer(other, training_shares(STORE)).window(start, end, "x")
        assert annotation_question(changed) == asked
        assert review_question(changed, "d") == review_question(window, "d")
        assert not any(user in asked for user in STORE.users)
        assert window.sample_id not in asked


def test_a_data_set_is_built_again_from_what_was_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, with nobody there to ask and no key, also where answers were no JSON, each another one.

    And a teacher that may not be asked is refused first.
    """
    events: set[str] = set()

    def answer(body: dict[str, Any], before: int) -> Do:
        question = body["messages"][0]["content"]
        seen, again = events_in(question), "An earlier answer was" in question
        events.add(seen)
        number = crc32(seen.encode()) % 8
        if number == 1 or (number in (0, 4) and not again):
            finish = "length" if number == 4 else "stop"
            return Do(text=f"Surely! {len(api.calls)}", finish=finish)
        return Do(text=json.dumps({kind: f"The {kind}: {last(seen)}." for kind in UNDERSTANDING}))

    monkeypatch.setenv("TEACHERS_KEY", "secret")
    with serving(answer, str) as api:
        config = settings(api.url, tmp_path, windows__train=24, windows__validation=8)
        config.teacher.key_variable = "TEACHERS_KEY"
        for name in SETS:
            ensure(Run(config, tmp_path / "a"), step_of(name), STEPS)
        refused = config.copy_and_resolve_references()
        refused.execution.api_consent = ""
        with pytest.raises(ConfigError, match=r"config\.teacher\.url: histories of people"):
            check_teacher(refused, ["dialogues"])
        check_teacher(refused, ["encoder"])
        assert api.calls == []
        ensure(Run(config, tmp_path / "a"), "dialogues", STEPS)
    monkeypatch.delenv("TEACHERS_KEY")
    ensure(Run(config, tmp_path / "b"), "dialogues", STEPS)
    first, second = (tmp_path / run / "dialogues" / "stage2.parquet" for run in "ab")
    assert first.read_bytes() == second.read_bytes()
    kinds = {
        turn.answer.partition(":")[0]
        for dialogue in read_dialogues(first)
        for turn in dialogue.rounds
        if turn.kind == "summary"
    }
    assert kinds == {"The summary"}
    records = [
        json.loads((tmp_path / run / "dialogues" / "record.json").read_text()) for run in "ab"
    ]
    told = [record["result"]["teacher"] for record in records]
    assert told[0] == told[1]
    assert told[0]["asked"] == len(events)
    assert told[0]["asked"] + told[0]["asked again"] == len(api.calls)
    assert 0 < told[0]["left out"] < told[0]["asked again"]


def test_what_it_would_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many questions as are asked, and the tokens of what is sent."""
    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], before: int) -> Do:
        bodies.append(body)
        seen = events_in(body["messages"][0]["content"])
        return Do(text=json.dumps(dict.fromkeys(UNDERSTANDING, f"{last(seen)}.")))

    def said() -> str:
        say_estimate(run, lambda step: ensure(run, step, STEPS))
        return " ".join(capsys.readouterr().out.split())

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path, windows__train=24, windows__validation=8)
        config.dialogues.shortened_share = 0.0
        run = Run(config, tmp_path)
        assert "at an unknown price (execution.api_limits.price_in and price_out are 0)" in said()
        config.execution.api_limits.price_out = 1000.0
        text = said()
        assert api.calls == []
        ensure(run, "dialogues", STEPS)
    number = len(bodies)
    sent = [json.dumps(body, ensure_ascii=False, separators=(",", ":")) for body in bodies]
    tokens = sum(len(one.encode()) // 3 + 16 for one in sent)
    assert 28 <= number <= 32  # a history before a day and before an event is asked about once
    assert text.startswith(
        f"{number} questions, each asked twice at most: of one round about {tokens:,} "
    )
    assert f"at most {number * 768:,} out, {number * 768 / 1000:.2f} at the prices" in text
    config.dialogues.reflect_critic = "teacher"
    with_critic = number + config.dialogues.reflect_train + config.dialogues.reflect_validation
    assert said().startswith(f"{with_critic} questions")
    config.dialogues.annotator = "rules"
    assert said().startswith(f"{with_critic - number} questions")
    config.stages = (1, 2)  # without stage 3 nothing is drafted
    assert said().startswith("0 questions: no step asks a teacher.")
