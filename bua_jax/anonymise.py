"""Makes ids and areas opaque, splits by person, and writes the result as parquet: pseudonymised data.

Ids become random ones, renewed every 90 days where the data has dates. Of each person's areas the ten
most visited are kept, as opaque codes. The file carries the split, made before the renaming. What people do
when stays, and most renewed ids can be linked by it: --audit measures how many, config.anonymise blurs
dates, times and the split, and docs/privacy.md says what that is worth.
Without --key-file the key is kept nowhere; with it, the same key gives the same ids again. Columns are
mapped by config.data, as everywhere; without --config by configs/data/behavior.py.

Examples:
  python -m bua_jax.anonymise --input=events.csv --output=shared/events.parquet
  python -m bua_jax.anonymise --input=nyc.parquet --output=out/nyc.parquet --key-file=../key.json \\
      --config=configs/curriculum.py:data=foursquare_nyc
  python -m bua_jax.anonymise --input=events.csv --output=shared/events.parquet --audit \\
      --config.anonymise.date_shift=True --config.anonymise.slot_hours=4
  python -m bua_jax.anonymise --input=a.tsv --output=out/a.parquet --config.data.columns.user=who
"""

import sys
from pathlib import Path

from absl import flags

from bua_jax import cli
from bua_jax.basics.console import notice, out
from bua_jax.basics.errors import ConfigError
from bua_jax.basics.files import check_output
from bua_jax.events.spec import FORMATS, DataSpec

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "input", "", "File (csv, tsv, parquet) to anonymise; the flag's name may be left out."
)
flags.DEFINE_string("output", "", "Parquet file to write.")
flags.DEFINE_string("key_file", "", "JSON file of the key, made if absent; not beside --output.")
flags.DEFINE_bool("audit", False, "Measure how many renewed ids can be linked to earlier ones.")


def main() -> None:
    spec = _spec()
    from bua_jax.evaluation.linkage import audit
    from bua_jax.events.anonymise import Hiding, anonymise_file, load_key
    from bua_jax.events.rows import BadRows

    report, hiding = BadRows(), Hiding(**FLAGS.config.anonymise)
    key = load_key(FLAGS.key_file, FLAGS.output)
    result = anonymise_file(spec, FLAGS.output, key, report, hiding=hiding)
    for reason, count in report.counts.items():
        notice(f"{spec.path}: skipped {count} rows ({reason})")
    out.print(f"{FLAGS.output}: " + "\n".join(result.lines()))
    if FLAGS.audit:
        linked = audit(spec, Path(FLAGS.output), key, hiding) or "nothing, a person has one id"
        out.print(f"linked: {linked}")
    out.print(f"key: {FLAGS.key_file or 'kept nowhere'}")


def _spec() -> DataSpec:
    """The file and how it is read, from flags and config. Raises `ConfigError`."""
    from bua_jax.pipeline import checks

    values = FLAGS.config.data.to_dict()
    if values["name"] == "simulated":
        raise ConfigError("The simulated population has no file: --config=FILE:data=behavior has.")
    if FLAGS.input:
        values["path"], suffix = FLAGS.input, Path(FLAGS.input).suffix[1:].lower()
        values |= {"format": suffix} if suffix in FORMATS else {}
    if not values["path"]:
        raise ConfigError(f"Data set {values['name']!r} has no file yet: give --input=FILE.")
    if not FLAGS.output:
        raise ConfigError("Give --output=FILE.parquet.")
    checks.check_fields(FLAGS.config.data, "data.")
    checks.check_fields(FLAGS.config.anonymise, "anonymise.")
    check_output(FLAGS.output, values["path"], FLAGS.key_file)
    return DataSpec.from_mapping(values)


if __name__ == "__main__":
    if not cli.names_config(sys.argv):
        sys.argv.insert(1, "--config=configs/curriculum.py:data=behavior")
    cli.run(main, config="configs/curriculum.py", argument="input")
