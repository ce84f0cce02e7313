"""Table 10: what the rounds before the prediction are worth (Appendix J): reference answers for the first.

Two controls are not the paper's: all three answers about another person (the test set's donor), and each of
the person's own under the question of the round before it.

python -m bua_jax.experiment --experiment=configs/experiments/table10.py:scale=laptop --workdir=runs/paper

The paper's accuracy is on a long-tail test set that it does not publish: `overall` and `tail` are ours.
"""

import itertools

from bua_jax.experiments.experiment import Claim, Experiment, Row, Scale

OWN = "own answers"
GIVEN = ("first round given", "first two given", "all three given")
NONE = "no rounds"
WRONG = {  # control -> row of methods/table.py
    "another person's three given": "bua_given_another",
    "all three given, shuffled": "bua_given_shuffled",
}


def get_experiment(scale: Scale) -> Experiment:
    rows = (
        Row(OWN),
        *(Row(name, method=f"bua_given{count}") for count, name in enumerate(GIVEN, 1)),
        *(Row(name, method=method, note="A control.") for name, method in WRONG.items()),
        Row(NONE, method="bua_no_rounds", note="The same model, asked for the label at once."),
    )
    order = (OWN, *GIVEN)  # the paper's rises with every round that is given
    claims = tuple(Claim(more, fewer, "overall") for fewer, more in itertools.pairwise(order))
    claims += tuple(Claim(GIVEN[-1], name, "overall") for name in WRONG)
    return Experiment("table10", "Table 10: reference rounds", scale, rows, OWN, claims)
