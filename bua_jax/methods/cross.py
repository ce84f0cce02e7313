"""TALLRec and LLaRA with BUA's summaries before their logs ("-cross", Table 3), and placebos.

All rows of a system share its page, their windows, base, batches and number of steps, and differ in the note
alone. They are fitted on the set `cross`, of training people on whom no stage of BUA is trained (its encoder
is), so that what it writes of them is like what it writes of test people. They are chosen on the set
`validation`, by which BUA's own checkpoints are.
"""

from bua_jax.methods import hybrid
from bua_jax.methods.protocol import NO_NOTES, Method, Notes

SETS = ("cross", "validation")
NOTES = {  # ending of a row's name -> what stands before its logs
    "apart": (", on the same windows", "no note", NO_NOTES),
    "cross": ("-cross", "a note that BUA wrote", Notes("bua", summary=True)),
    "cross_another": (
        "-cross, another person's",
        "a note that BUA wrote about another person",
        Notes("bua", another=True, summary=True),
    ),
    "cross_untuned": (
        "-cross, untuned",
        "a note that the base wrote as it comes",
        Notes("untuned", summary=True),
    ),
}
SYSTEMS = {"tallrec": "TALLRec", "llara": "LLaRA"}


def _rows(system: str, title: str) -> tuple[Method, ...]:
    return tuple(
        hybrid.method(
            f"{system}_{ending}",
            f"{title}{more}",
            f"section 4.5 of the paper: {what}",
            page=system,
            sets=SETS,
            notes=notes,
        )
        for ending, (more, what, notes) in NOTES.items()
    )


METHODS = tuple(row for system, title in SYSTEMS.items() for row in _rows(system, title))
