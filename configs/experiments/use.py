"""Is understanding of use? What true answers are worth to a prediction, and what a summary tells alone.

python -m bua_jax.experiment --experiment=configs/experiments/use.py:scale=laptop --workdir=runs/paper

The oracle's gain is that of true answers in place of BUA's own (Appendix J); answers about another person
should cost. The readers of summaries see no log: what they reach above the same reader of another person's
summaries is what the text says of this person's next behaviour. All readers have the same windows
(`windows.cross`), of people on whom no stage of BUA is trained.
"""

import dataclasses

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

WINDOWS = {"tiny": 40, "laptop": 4_000, "paper": 20_000}
OWN, TRUE, WRONG, NONE = (
    "own answers",
    "true answers given",
    "another person's answers given",
    "no rounds",
)
ALONE, RULES = "BUA's summary alone", "the rules' summary alone"
READERS = {
    ALONE: "summary_alone",
    "BUA's summary of another person": "summary_alone_another",
    "the untuned base's summary alone": "summary_alone_untuned",
    RULES: "summary_alone_reference",
}


def get_experiment(scale: Scale) -> Experiment:
    sizes = {**scale.fields, "windows.cross": WINDOWS[scale.name]}
    rows = (
        Row(OWN),
        Row(TRUE, method="bua_given3", note="The rules' answers to all three rounds: the oracle."),
        Row(WRONG, method="bua_given_another", note="The same of the donor of the set."),
        Row(NONE, method="bua_no_rounds", note="The same model, asked for the label at once."),
        *(
            Row(name, method=method, note="A linear reader of words, without a log.")
            for name, method in READERS.items()
        ),
        Row("majority", method="majority", note="What is known of nobody in particular."),
    )
    claims = (
        Claim(TRUE, OWN, "overall"),
        Claim(OWN, WRONG, "overall"),
        Claim(OWN, NONE, "overall"),
        *(Claim(ALONE, name, "overall") for name in READERS if name not in (ALONE, RULES)),
        Claim(RULES, ALONE, "overall"),
        Claim(ALONE, "majority", "overall"),
    )
    return Experiment(
        "use",
        "Is understanding of use?",
        dataclasses.replace(scale, fields=sizes),
        rows,
        OWN,
        claims,
    )
