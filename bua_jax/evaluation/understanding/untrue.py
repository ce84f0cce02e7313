"""What of a text is not true of a window, in words: reasons for whoever wrote it."""

from bua_jax.dialogue.facts import Window
from bua_jax.evaluation.understanding.checks import Ground, holds
from bua_jax.evaluation.understanding.claims import plain, read


def untrue(window: Window, text: str) -> list[tuple[str, str]]:
    """(aspect, what is said) of each false claim, each once; a behaviour that does not occur counts once."""
    reading, ground = read(window.catalogue, text), Ground(window)
    found = []
    for claim, start, end in reading.said:
        if holds(ground, claim) is not False:
            continue
        names = ", ".join(window.label(b) for b in claim.about)
        said = plain(window.catalogue, reading.marked[start:end])
        if claim.aspect == "behaviours":
            found.append((claim.aspect, f"{names} does not occur"))
        else:
            found.append((claim.aspect, f"{claim.aspect} of {names or 'the person'}: {said!r}"))
    return list(dict.fromkeys(found))
