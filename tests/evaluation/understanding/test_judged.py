"""Texts in pieces, each with what the history says of it."""

from bua_jax.dialogue import facts
from bua_jax.dialogue.facts import Window
from bua_jax.evaluation.understanding.judged import judged, untrue
from tests.evaluation.understanding.described import described


def windows() -> list[tuple[Window, str]]:
    found = described()
    return [
        (one.ground.window, text) for one, text in zip(found.about[:20], found.texts, strict=False)
    ]


def test_pieces_are_the_text_and_what_the_rules_say_is_true() -> None:
    for window, text in windows():
        pieces = judged(window, text)
        assert "".join(words for words, _ in pieces) == text
        assert {verdict for _, verdict in pieces} <= {"true", ""}
        assert any(verdict == "true" for _, verdict in pieces)
        assert untrue(window, text) == []


def test_what_is_not_so_is_marked_and_said() -> None:
    window, _ = windows()[0]
    done = window.label(window.behaviours[-1])
    never = next(b for i, b in enumerate(window.catalogue.behaviours) if not window.counts[i])
    text = f"Frequent: {done.upper()} (99 of 40). {never} around 08:00. Some words."
    pieces = judged(window, text)
    assert "".join(words for words, _ in pieces) == text
    said = dict(pieces)
    assert any("99" in words for words, verdict in pieces if verdict == "false")
    assert said[never] == "false"
    assert any("08:00" in words for words, verdict in pieces if verdict == "not checkable")
    assert any("Some words" in words for words, verdict in pieces if verdict == "")
    aspects = dict(untrue(window, text))
    assert aspects["behaviours"] == f"{never} does not occur"
    number = window.counts[window.behaviours[-1]]
    right = f"'99', expected {number} of {len(window.history)}"
    assert aspects["counts"] == f"counts of {done}: {right}"


def test_a_reason_says_what_would_be_right() -> None:
    """Where there is one such thing: home, by its place; of a time there are many."""
    window = next(window for window, _ in windows() if facts.home(window)[0])
    done = window.label(window.behaviours[-1])
    said = [reason for _, reason in untrue(window, f"Home is L99. {done} around 25:00.")]
    assert said == [
        f"home of the person: 'L99', expected L{facts.home(window)[0]}",
        f"times of {done}: '25:00'",
    ]
