"""Has people, or a model, rate texts about people, blinded (Appendices Q and R): items, packets, scores.

Examples:
  python -m bua_jax.rate items --workdir=runs/quickstart --sources=reference,bua --output=items.jsonl
  python -m bua_jax.rate export --input=items.jsonl --judges=3 --output=ratings
  python -m bua_jax.rate score --input=ratings/key.json --answers=judge1.csv,judge2.csv --output=scores
  python -m bua_jax.rate judge --workdir=runs/quickstart --input=items.jsonl --output=judged --estimate

`items` writes a line for each history: id, history, predicted (what BUA says comes next) and texts by source,
to which you add those of others ("human": "..."). `export` writes a page (and a CSV) for each judge into
ratings/packets, and ratings/key.json, which no judge may see; judges send back the file that the page saves.
`score` says means, best shares, differences, agreement. `judge` asks a model (config.judge) in their place.
"""

from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics.errors import ConfigError

ACTIONS = ("items", "export", "score", "judge")
FLAGS = flags.FLAGS
flags.DEFINE_string("action", "", f"{', '.join(ACTIONS)}; the flag's name may be left out.")
flags.DEFINE_list("sources", ["reference", "bua"], "items: methods that describe.")
flags.DEFINE_integer("number", 120, "items: how many, of as many people as can be.", lower_bound=1)
flags.DEFINE_string("input", "", "export, judge: file of items. score: key.json.")
flags.DEFINE_integer("judges", 3, "export: how many.", lower_bound=1)
flags.DEFINE_integer("seed", 42, "Of what is drawn; export: secret unless given.", lower_bound=0)
flags.DEFINE_list("answers", [], "score: the files that judges sent back.")
flags.DEFINE_string("output", "", "items: file; export: folder; else a file without its ending.")
flags.DEFINE_bool("estimate", False, "judge: say what a model would be asked, and stop.")
cli.define_take_over()


def main() -> None:
    if FLAGS.action not in ACTIONS:
        raise ConfigError(f"Say what to do: {', '.join(ACTIONS)}; see --help.")
    for name in ("output",) if FLAGS.action == "items" else ("output", "input"):
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is missing; see --help for what {FLAGS.action} takes.")
    {"items": _items, "export": _export, "score": _score, "judge": _judge}[FLAGS.action]()


def _items() -> None:
    from bua_jax.experiments.rating import write_items_of
    from bua_jax.pipeline.chain import start

    run = start(cli.config_of(cli.workdir()), cli.workdir(), take_over=FLAGS.take_over)
    write_items_of(run, Path(FLAGS.output), FLAGS.sources, FLAGS.number, FLAGS.seed)


def _export() -> None:
    from bua_jax.evaluation.rating.items import read_items
    from bua_jax.evaluation.rating.packets import export

    seed = None if FLAGS["seed"].using_default_value else FLAGS.seed
    export(read_items(Path(FLAGS.input)), FLAGS.judges, seed, Path(FLAGS.output))


def _score() -> None:
    from bua_jax.evaluation.rating import scores
    from bua_jax.planning.report import print_report

    ratings = scores.read_ratings(Path(FLAGS.input), [Path(path) for path in FLAGS.answers])
    print_report(scores.write_scores(Path(FLAGS.output), scores.score(ratings)))


def _judge() -> None:
    from bua_jax.experiments.judging import judge
    from bua_jax.pipeline.chain import start
    from bua_jax.planning.report import print_report

    run = start(cli.config_of(cli.workdir()), cli.workdir())
    files = Path(FLAGS.input), Path(FLAGS.output)
    print_report(judge(run, *files, FLAGS.seed, only_cost=FLAGS.estimate))


if __name__ == "__main__":
    cli.run(main, config="configs/curriculum.py", argument="action")
