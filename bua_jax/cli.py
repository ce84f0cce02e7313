"""The command line that all verbs share: flags, config files, and errors as one paragraph."""

import contextlib
import difflib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from bua_jax.basics import config as configs
from bua_jax.basics import files, help, interrupts
from bua_jax.basics.console import notice, run_verb
from bua_jax.basics.errors import ConfigError, DataError, MismatchError
from bua_jax.basics.hints import nearest_file, nearest_run, no_run

FLAGS = flags.FLAGS


def _split_config(argument: str) -> tuple[str, str]:
    path, _, arg = argument.partition(":")
    return path, arg


def _resolved_argv(argv: list[str], default: str) -> list[str]:
    """Replaces `--config PATH[:ARG]` by the file that it means (checkout or wheel), before its fields."""
    rest: list[str] = []
    named: list[str] = []
    i = 1
    while i < len(argv):
        item = argv[i]
        if item in ("--config", "-config") and i + 1 < len(argv):
            item, i = f"--config={argv[i + 1]}", i + 1
        if item.startswith(("--config=", "-config=")):
            path, arg = _split_config(item.partition("=")[2])
            named.append(f"--config={configs.resolve(path)}" + (f":{arg}" if arg else ""))
        else:
            rest.append(item)
        i += 1
    return [argv[0], *(named[-1:] or [f"--config={configs.resolve(default)}"]), *rest]


def _spelled(item: str) -> str:
    """`--dry-run=x` as `--dry_run=x`: flags have underscores, and people write hyphens."""
    name, equals, value = item.partition("=")
    if not name.startswith("--") or name.startswith("--config."):
        return item
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _check_overrides(argv: list[str]) -> None:
    """Raises `ConfigError` for `--config.NAME` that is no field, with the nearest field's name."""
    argument = next(item for item in argv if item.startswith("--config="))
    config = configs.load(*_split_config(argument.partition("=")[2]))
    known = list(configs.settings(config, config))
    for item in argv:
        if not item.startswith(("--config.", "--noconfig.")):
            continue
        name = item.partition(".")[2].partition("=")[0]
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"The config has no field {name!r}.{hint}")


def config_name(argument: str) -> str:
    """`configs/stage2.py:data=x` -> `stage2`, the default folder below runs/."""
    return Path(_split_config(argument)[0]).stem


def run(
    main: Callable[[], None],
    config: str | None = None,
    *,
    distributed: bool = False,
    argument: str = "",
) -> None:
    """Runs a verb. With `config` (a shipped file) the verb gets `--config` and `--workdir`.

    argument: flag whose value may stand without the flag's name; the values, if it is a list.

    With `distributed` it can be one of several processes, and gets the flags that say which, and
    `--dry_run`, in which it is one process.
    Config typos and bad values end as one paragraph on stderr and exit code 2.
    """

    def body() -> None:
        interrupts.as_usual()
        argv = list(map(_spelled, sys.argv))
        if config is not None:
            if not asks_help(argv):  # also where the config is wrong
                argv = _resolved_argv(argv, config)
                _check_overrides(argv)
                sys.argv = argv
            said = f"Config file[:KEY=VALUE,...]; default {config}."
            config_flags.DEFINE_config_file("config", None, said)
            flags.DEFINE_string("workdir", "", "Folder of the run; default runs/<config>.")
        if distributed:
            _define_distributed()
        if asks_help(argv):
            print(help.page(sys.modules["__main__"].__doc__ or "", _own_flags()))
            return
        _parse(argv, argument)
        _check_given(config is not None)
        files.check_scratch()
        _use_compilation_cache()
        if distributed and is_distributed() and not FLAGS.dry_run:
            from bua_jax.parallel import processes

            processes.start(FLAGS.coordinator, FLAGS.process_count, FLAGS.process_id)
        warn_cpu_only()
        main()

    app.define_help_flags()
    together: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if distributed:
        from bua_jax.parallel.processes import ending_together

        together = ending_together()
    with together:
        try:
            run_verb(body)
        finally:
            interrupts.at_once()


def _parse(argv: list[str], argument: str) -> None:
    """Reads the flags; `argument` as in `run`. Raises `ConfigError` for what is none."""
    try:
        rest = FLAGS(argv)
    except SystemExit as stop:  # absl leaves --help with 1, as if it had failed
        sys.exit(0 if any(item.lstrip("-").startswith("help") for item in argv) else stop.code)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        said = str(error).rstrip(".")
        raise ConfigError(f"{said}. Run with --help for the flags and examples.") from error
    if argument and len(rest) > 1 and not FLAGS[argument].value:
        several = isinstance(FLAGS[argument].value, list)
        FLAGS[argument].value = rest[1:] if several else rest[1]
        rest = rest[:1] if several else [rest[0], *rest[2:]]
    if len(rest) > 1:
        raise ConfigError(
            f"Unexpected argument {rest[1]!r}: every argument is a flag, --NAME=VALUE. Run with "
            "--help for the flags and examples."
        )


def _check_given(config: bool) -> None:
    """Refuses what is wrong whatever the verb does with it, before it imports what it takes to do it.

    config: whether the verb has one. Raises `ConfigError` for values that are not legal and for a file
    that is not there, `MismatchError` for folders of runs that are not there.
    """
    own: dict[str, Any] = {flag.name: flag.value for flag in _own_flags()}
    model, file = own.get("model"), own.get("input")
    if model and not Path(model).is_dir():
        raise no_run(Path(model))
    if file and not Path(file).is_file():
        if Path(file).is_dir():
            raise ConfigError(f"--input={file} is a folder. Give the name of a file.")
        makes = f" Make one with: python -m bua_jax.predict --model=RUN --example=3 > {file}"
        histories = "model" in own and file.endswith(".jsonl")  # not rate's items
        raise ConfigError(
            f"There is no file --input={file}.{makes * histories or nearest_file(Path(file))}"
        )
    for folder in own.get("runs") or []:
        if not Path(folder).is_dir():
            raise MismatchError(f"There is no folder {folder}.{nearest_run(Path(folder))}")
    if config:
        from bua_jax.pipeline.checks import check_fields

        check_fields(FLAGS.config)


def asks_help(argv: list[str]) -> bool:
    """Whether a command line asks for the page of the verb; absl answers --helpfull."""
    given = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    return any(item in ("-h", "-?", "-help", "--help", "--helpshort") for item in given)


def _own_flags() -> list[flags.Flag[Any]]:
    """Those of the verb and those that are defined here."""
    shared = FLAGS.flags_by_module_dict().get(__name__, [])
    own = FLAGS.get_key_flags_for_module(sys.argv[0])
    return list({flag.name: flag for flag in (*shared, *own)}.values())


def is_distributed() -> bool:
    """Whether this is one of several processes."""
    return bool(FLAGS.distributed or FLAGS.coordinator)


def _define_distributed() -> None:
    flags.DEFINE_bool("dry_run", False, "Check the config, say what would be built, and stop.")
    flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes with one workdir; Slurm, Open MPI or the TPU slice says which.",
    )
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, where nothing says it; then also:"
    )
    flags.DEFINE_integer("process_count", None, "Number of processes.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, the small ones too: there are hundreds of them.

    Before jax is imported, which is when it reads these.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "bua_jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def names_config(argv: list[str]) -> bool:
    """Whether a command line says which config file it means."""
    return any(item.lstrip("-").startswith("config=") or item == "--config" for item in argv)


NAMED = names_config(sys.argv)  # before `run` names the default


def config_of(workdir: Path) -> ConfigDict:
    """The config of an earlier command in a workdir (its run.json), with this command's overrides.

    Without such a file, and where --config names one, the config of this command.
    """
    path = workdir / "run.json"
    if NAMED or not path.is_file():
        return FLAGS.config
    try:
        config = ConfigDict(_with_tuples(files.read_sealed(path)["config"]))
    except DataError as error:
        raise DataError(f"{error} Name the config of the run with --config=FILE.") from error
    override(config)
    config.lock()
    return config


def override(config: ConfigDict) -> None:
    """Gives a config this command's `--config.FIELD=VALUE`. Raises `ConfigError` for fields it lacks."""
    for name, value in FLAGS["config"].override_values.items():  # type: ignore[attr-defined]
        try:
            config.update_from_flattened_dict({name: value})
        except KeyError as error:
            raise ConfigError(
                f"--config.{name}: the config of this run has no such field."
            ) from error


def _with_tuples(value: Any) -> Any:
    """JSON's lists as the tuples that configs have."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def command(verb: str, *arguments: str) -> str:
    """What somebody types to run a verb; names with spaces are quoted."""
    return shlex.join(["python", "-m", f"bua_jax.{verb}", *arguments])


def given(*names: str) -> list[str]:
    """Of these flags those that this command has, and its `--config.FIELD=VALUE`, to be given again."""
    own = {name: FLAGS[name] for name in names}
    values = {
        n: ",".join(f.value) if isinstance(f.value, list) else f.value for n, f in own.items()
    }
    fields = FLAGS["config"].override_values  # type: ignore[attr-defined]
    values |= {f"config.{name}": value for name, value in fields.items()}
    return [f"--{name}={value}" for name, value in values.items() if value not in ("", None)]


def config_argument() -> str:
    """What --config was given: FILE[:KEY=VALUE,...]."""
    return str(getattr(FLAGS["config"], "config_filename"))  # noqa: B009 (absl's Flag has no such field)


def config_with(item: str) -> tuple[str, str]:
    """(file, argument) of this --config with one more KEY=VALUE. Raises `ConfigError` for `,` and `:`."""
    for mark, name in {",": "comma", ":": "colon"}.items():
        if mark in item:
            raise ConfigError(f"{item}: a {name} parts values there. Choose a name without one.")
    path, given = _split_config(config_argument())
    return path, ",".join(filter(None, (given, item)))


def workdir() -> Path:
    """The run's folder: --workdir, or runs/<name of the config>."""
    given = FLAGS.workdir
    return as_workdir(given or f"runs/{config_name(config_argument())}")


def workdir_for(file: str) -> Path:
    """--workdir, or runs/<name of the file>, without what a config or checkpoints cannot have."""
    return as_workdir(FLAGS.workdir or "runs/" + re.sub(r"[,:*?\[\]\\]", "_", Path(file).stem))


def as_workdir(given: str) -> Path:
    """A --workdir, which may not be there yet. Raises `ConfigError` if there is a file in its place."""
    path = Path(given)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise ConfigError(f"--workdir={path}: {part} is a file. Choose a folder for the run.")
    return path


def define_take_over() -> None:
    """The flag of a verb that claims what it writes (`basics.claims`)."""
    flags.DEFINE_bool(
        "take_over", False, "Go on with what a process of another host has claimed, which is gone."
    )


def define_columns() -> None:
    """The flag of a verb that reads a file of events without a data config."""
    flags.DEFINE_list("columns", [], "FIELD=COLUMN, ... of the file of events; FIELD= for none.")


def define_asked() -> None:
    """The flags of a verb that asks a model about people."""
    flags.DEFINE_string(
        "input", "", "File of events or histories; the flag's name may be left out."
    )
    flags.DEFINE_string("output", "", "File to write: jsonl, csv or parquet.")
    flags.DEFINE_string("for", "all", "Id of the one person who is asked about, or all.")
    define_columns()
    define_weights()


def define_weights() -> None:
    """The flag of a verb that decodes."""
    flags.DEFINE_enum(
        "weights",
        None,
        ["float32", "bfloat16", "int8"],
        "Type in which a CPU reads them: narrower ones are faster and less exact (default: the run's).",
    )


def asked() -> dict[str, Any]:
    """Who is asked about, and the columns: keyword arguments of `planning.people.asked_people`."""
    whom: str = getattr(FLAGS, "for")
    return {"only": "" if whom == "all" else whom, "columns": columns()}


def columns() -> dict[str, str]:
    """Field -> column, as given. Raises `ConfigError` for what is not FIELD=COLUMN."""
    for item in FLAGS.columns:
        if "=" not in item:
            raise ConfigError(f"--columns: {item!r} is not FIELD=COLUMN, for example user=who.")
    return dict(item.split("=", 1) for item in FLAGS.columns)


def define_engine() -> None:
    """The flags of a verb that can work on a Ray cluster."""
    flags.DEFINE_enum("engine", "local", ["local", "ray"], "This process, or a Ray cluster.")
    address = "ray: cluster; default RAY_ADDRESS, then one that runs here, then a new local one."
    flags.DEFINE_string("ray_address", "", address)
    flags.DEFINE_float("ray_cpus", 1, "ray: CPU cores of a shard.", lower_bound=0.0)
    flags.DEFINE_float("ray_gpus", 0, "ray: GPUs of a shard.", lower_bound=0.0)
    flags.DEFINE_integer("ray_retries", 3, "ray: more tries after lost workers.", lower_bound=0)


def cluster() -> dict[str, Any] | None:
    """What the flags of `define_engine` say of the cluster; None for the local engine."""
    if FLAGS.engine == "local":
        return None
    given = {"address": FLAGS.ray_address, "cpus": FLAGS.ray_cpus, "gpus": FLAGS.ray_gpus}
    return {**given, "retries": FLAGS.ray_retries}


def warn_cpu_only() -> None:
    """Says once that a GPU is there which the installed jax cannot use; asks the packages, not jax."""
    if not Path("/proc/driver/nvidia/version").exists() or os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    if not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        notice(
            "This machine has an NVIDIA GPU but the installed jax is CPU-only. "
            "Install the GPU build: pip install 'jax[cuda12]'."
        )
