"""An experiment of systems that count, which are fitted in a second."""

from pathlib import Path

from bua_jax.experiments.experiment import TINY, Claim, Experiment, Row, Scale

SMALL = Scale(
    "small",
    "configs/quickstart.py",
    (1, 2, 3, 4, 5),
    {**TINY, "data.num_users": 150, "windows.test": 600},
)
PLAIN, SMOOTH = "last event", "smoother"


def experiment(scale: Scale = SMALL) -> Experiment:
    rows = (
        Row(PLAIN, method="markov", published=("Table 1", "BUA")),
        Row(
            "majority",
            method="majority",
            published=("Table 14", "BehaveGPT"),
            note="Always the same.",
        ),
        Row(SMOOTH, {"methods.markov.smoothing": 5.0}, method="markov"),
        Row("the same", method="markov"),
    )
    claims = (
        Claim(PLAIN, "majority"),
        Claim(PLAIN, "the same"),
        Claim("majority", PLAIN, "log_loss"),
    )
    return Experiment("small", "Small", scale, rows, PLAIN, claims)


def write(path: Path) -> str:
    """A file of that experiment, as the verb takes it."""
    path.write_text(
        "from tests.experiments.files import experiment\n"
        "\n"
        "\n"
        "def get_experiment(scale):\n"
        "    return experiment()\n"
    )
    return str(path)
