"""What every method of the table keeps to (design, section 5), on a tiny run."""

import dataclasses
import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bua_jax.alignment import bases
from bua_jax.basics import config as configs
from bua_jax.basics import files
from bua_jax.basics.errors import ConfigError, DataError, UndeclaredError
from bua_jax.evaluation import results
from bua_jax.events.schema import EventStore
from bua_jax.experiments.experiment import TINY
from bua_jax.methods import cross, neural, summary_alone
from bua_jax.methods.protocol import Cases, Counted, Histories, Kind, Method, Site
from bua_jax.methods.table import METHODS
from bua_jax.pipeline import chain
from bua_jax.pipeline import methods as built
from bua_jax.pipeline.cases import cases_about
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.evaluate import said_of, score_predictions
from bua_jax.pipeline.methods import ASKED, asked_site, rows_of_slice
from bua_jax.pipeline.steps import Run, Step, ensure, outline
from bua_jax.pipeline.windows import load_set
from bua_jax.training import events
from tests.support.api import Api, Do, said_by_host, serving

FEW = 8
GIVEN = tuple(f"bua_given{what}" for what in (1, 2, 3, "_another", "_shuffled"))
CROSS = tuple(method.name for method in (*cross.METHODS, *summary_alone.METHODS))
LONG = """bua_stage1 bua_stage2 bua_joint bua_no_rounds encoder_adjusted tallrec collm llara a_llmrec
hybrid_data pituning untuned d2a sand behavegpt_days behavegpt_timed_days"""
ALIKE = (*GIVEN, *CROSS, *LONG.split())  # that share others' code, or compile long: long tests
NETWORKS = ("sasrec", "behavegpt", "behavegpt_timed_days", "pituning", "alphafuse")
TRAINED = (*NETWORKS, "sand", "tallrec", "collm", "llara", "a_llmrec", "hybrid_data", *CROSS)
COLUMN = {"weekday": 0, "slot": 1, "behaviour": 3}  # of `Histories.fields`


@pytest.fixture(scope="module")
def host() -> Iterator[Api]:
    """Where methods send logs to: this machine."""
    with serving(lambda body, before: Do(), said_by_host) as api:
        yield api


@pytest.fixture(scope="module")
def run(quickstart: Path, host: Api, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reduced quickstart, to which steps may be added."""
    workdir = tmp_path_factory.mktemp("contract") / "run"
    shutil.copytree(quickstart, workdir)
    config = configs.load("configs/quickstart.py")
    config.update_from_flattened_dict(dict(TINY))
    for name in ("zero_shot_api", "d2a_api"):
        config.methods[name].update(url=host.url, key_variable="")
    how = config.execution
    how.update(api_consent="127.0.0.1", api_cache=str(workdir.parent / "api.sqlite"))
    how.api_limits.requests_per_minute = 60_000
    return Run(config, workdir)


def kinds(method: Method) -> tuple[Kind, ...]:
    """What it is asked for here: of the rows that are BUA trained otherwise, one thing."""
    return method.says if method.name == "bua" else method.says[:1]


class Ready:
    """A method that was asked about a set of the run, and can be asked more."""

    def __init__(self, run: Run, method: Method, kind: Kind) -> None:
        name = ASKED[kind][0]
        self.kind, self.method = kind, method
        step = STEPS[f"{kind}/{method.name}/{name}"]
        before, unbuilt = stamps(run.workdir), [n for n, ok in outline_of(run, step) if not ok]
        ensure(run, step.name, STEPS)
        written = {path for path, at in stamps(run.workdir).items() if at != before.get(path)}
        own_folders = {run.folder(name) for name in unbuilt}
        self.astray = {
            path
            for path in written - {run.workdir / "run.json"}  # which says what was asked for last
            if not own_folders & {*path.parents}
        }
        own = step.run(run)
        self.folder, self.site = own.folder(step.name), asked_site(own, method, kind)
        self.cases = cases_about(own, method, kind, name, load_store(own))
        self.asked = method.load(self.site)

    def ask(self, cases: Cases) -> Any:
        return getattr(self.asked, self.kind)(cases)


def outline_of(run: Run, step: Step) -> list[tuple[str, bool]]:
    """The steps up to one, and whether each is finished."""
    return [*outline(run, step.name, STEPS).items()]


def stamps(workdir: Path) -> Mapping[Path, int]:
    """When each file of a run was written."""
    return {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((name, kind), marks=[pytest.mark.long] if name in ALIKE else [])
        for name, method in METHODS.items()
        for kind in kinds(method)
    ],
    ids=" ".join,
)
def ready(request: pytest.FixtureRequest, run: Run) -> Ready:
    name, kind = request.param
    return Ready(run, METHODS[name], kind)


def same(one: Any, other: Any) -> None:
    """Equal labels, days and texts; probabilities within 1e-4: batches differ in the last bits."""
    for name, value in one._asdict().items():
        found = getattr(other, name)
        if name == "probability" and value is not None:
            np.testing.assert_allclose(found, value, atol=1e-4)
        elif value is None:
            assert found is None
        else:
            assert list(found) == list(value), name


def of(answer: Any, rows: Any) -> Any:
    """The answers at `rows`."""
    return type(answer)(*(None if v is None else [v[i] for i in rows] for v in answer))


def test_slices_and_their_order_change_nothing(ready: Ready) -> None:
    cases = ready.cases[:FEW]
    whole, count = ready.ask(cases), len(cases)
    turned = [*range(count)][::-1]
    same(ready.ask(cases.take(np.asarray(turned))), of(whole, turned))
    cut = max(1, count - 3)
    same(ready.ask(cases[:cut]), of(whole, range(cut)))


def test_cut_and_asked_again_it_says_the_same(ready: Ready, tmp_path: Path) -> None:
    """What was said before the cut is kept, and not asked again; the whole is as if never cut."""
    cases, slices = ready.cases[:FEW], []
    size = max(1, len(cases) // 3)

    def written(path: Path, cut_at: int | None = None) -> results.Result:
        asked = ready.method.load(ready.site)

        def ask(some: slice) -> results.Rows:
            if cut_at is not None and some.start >= cut_at:
                raise KeyboardInterrupt
            slices.append(some.start)
            return rows_of_slice(asked, ready.kind, cases, some)

        how = results.Ready(asked.facts, size, ask)
        results.write(path, ready.kind, {}, "identity", cases.sample_id, how)
        return results.read(path)

    whole = written(tmp_path / "whole.arrow")
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "cut.arrow", cut_at=size)
    slices.clear()
    assert written(tmp_path / "cut.arrow").digest == whole.digest
    assert slices == [*range(size, len(cases), size)]


def test_probabilities_are_distributions(ready: Ready, run: Run) -> None:
    if ready.kind != "predict":
        pytest.skip("it predicts nothing")
    said = ready.ask(ready.cases[:FEW])
    if said.probability is None:  # it names labels alone, or none
        classes = len(load_store(run).catalogue.behaviours)
        assert set(said.label.tolist()) <= {-1, *range(classes)}
        return
    np.testing.assert_allclose(np.sum(said.probability, axis=1), 1, atol=1e-5)
    assert np.min(said.probability) >= 0
    np.testing.assert_array_equal(said.label, np.argmax(said.probability, axis=1))


def test_it_sees_what_it_says_it_sees(ready: Ready) -> None:
    """Another value of any other field, and another person's name, changes nothing."""
    cases, sees = ready.cases[:FEW], ready.method.about.sees
    same(ready.ask(with_others(cases, sees)), ready.ask(cases))
    assert with_others(cases, ()).arrays.fields.tolist() != cases.arrays.fields.tolist()


def with_others(cases: Cases, sees: tuple[str, ...]) -> Cases:
    """The cases with other values in all fields of events but those in `sees`."""
    seen = cases.arrays
    fields, place = seen.fields.copy(), seen.place_rank
    inside = np.arange(fields.shape[1]) < seen.n_events[:, None]
    for name, sizes in {"weekday": 7, "slot": 48, "behaviour": 20}.items():
        if name not in sees:
            column = fields[:, :, COLUMN[name]]
            fields[:, :, COLUMN[name]] = np.where(inside, (column + 1) % sizes, 0)
    if "place" not in sees:
        fields[:, :, 2] = np.where(inside, (fields[:, :, 2] + 1) % 10, 0)
        place = np.where(inside, (place + 1) % 10, 0)
    day, gap = seen.day, cases.gap
    if not {"weekday", "slot"} & {*sees}:  # when it was, and whether an unknown time passed before
        day, gap = 2 * day - 7 * inside, gap ^ inside
    arrays = Histories(fields, place, day, seen.n_events)
    user = tuple(f"{name}, another" for name in cases.user)  # nobody may be known by name
    return dataclasses.replace(cases, arrays=arrays, gap=gap, user=user)


def test_what_is_built_for_it_lies_in_the_folders_of_its_steps(ready: Ready) -> None:
    assert ready.astray == set()


def test_being_asked_writes_nothing(ready: Ready, run: Run) -> None:
    before = stamps(run.workdir)
    ready.method.load(ready.site)
    ready.ask(ready.cases[:2])
    assert stamps(run.workdir) == before


def test_it_is_asked_without_events_and_targets(ready: Ready, run: Run, tmp_path: Path) -> None:
    """It answers where the files that hold what comes next, and what others said, are not there."""
    whole = ready.ask(ready.cases[:2])
    files_of = ("data/*.parquet", "windows/*/*.parquet", "dialogues/*", "*/*/*/result.arrow")
    hidden = [path for pattern in files_of for path in run.workdir.glob(pattern)]
    assert len(hidden) > len(ASKED)
    for number, path in enumerate(hidden):
        path.rename(tmp_path / str(number))
    try:
        same(getattr(ready.method.load(ready.site), ready.kind)(ready.cases[:2]), whole)
    finally:
        for number, path in enumerate(hidden):
            (tmp_path / str(number)).rename(path)


def test_it_reads_only_what_it_declared(ready: Ready) -> None:
    declared = STEPS[f"{ready.kind}/{ready.method.name}/{ready.folder.name}"].fields
    config = configs.load("configs/quickstart.py")
    for name in configs.settings(config, list(config)):
        whole = [name, *(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))]
        if not {*whole} & {*declared, "execution"}:
            with pytest.raises(UndeclaredError, match=f"method {ready.method.name} reads "):
                functools.reduce(getattr, name.split("."), ready.site.config)
    assert not {"windows/match", "windows/test"} & (set(ready.site.inputs) - {need_of(ready)})


def need_of(ready: Ready) -> str:
    """The set that it is asked about."""
    return f"windows/{ready.folder.name}"


def test_what_it_says_names_no_person(ready: Ready, run: Run) -> None:
    store = EventStore.load(run.workdir / "data" / "events.parquet")
    assert not set(ready.cases.sample_id) & set(store.users.tolist())
    assert not set(ready.cases.user) & set(store.users.tolist())


def test_logs_are_sent_nowhere_without_consent(run: Run, host: Api) -> None:
    """Nor is a method that sends some asked unless it is named."""
    sending = {name for name, method in METHODS.items() if method.about.sends_logs}
    assert sending
    assert not sending & set(configs.load("configs/base.py").evaluation.methods)
    config = run.config.copy_and_resolve_references()
    config.execution.api_consent = ""
    refusing = Run(config, run.workdir.parent / "refused")
    sent = len(host.calls)
    for name in sending:
        for kind in METHODS[name].says:
            step = f"{kind}/{name}/{ASKED[kind][0]}"
            for build in (chain.build, functools.partial(ensure, table=STEPS)):
                with pytest.raises(ConfigError, match="api_consent='' is not '127"):
                    build(refusing, step)
    assert len(host.calls) == sent


def test_a_fit_comes_out_the_same_and_writes_into_its_folder_alone(
    run: Run, tmp_path: Path
) -> None:
    """Those that take no training loop, again in a copy of the run that lacks them."""
    fitted = [name for name, method in METHODS.items() if method.fit and name not in TRAINED]
    assert {"majority", "lightgbm", "fused"} <= {*fitted}
    for name in fitted:
        ensure(run, f"fit/{name}", STEPS)
    again = Run(run.config, Path(shutil.copytree(run.workdir, tmp_path / "run")))
    for name in fitted:
        folder = again.workdir / "fit" / name
        shutil.rmtree(folder)
        before = stamps(again.workdir)
        ensure(again, f"fit/{name}", STEPS)
        after = stamps(again.workdir)
        for file in METHODS[name].files:
            assert (folder / file).read_bytes() == (run.workdir / "fit" / name / file).read_bytes()
        written = {path for path in after if after[path] != before.get(path)}
        own = {folder / file for file in (*METHODS[name].files, "record.json")}
        assert written - {again.workdir / "run.json"} == own  # which says what was asked for last


def test_a_base_is_loaded_and_hashed_once_however_many_share_it(run: Run, monkeypatch) -> None:
    """Trained by stages, asked as it comes, or read for its embeddings and blocks."""
    loads, hashes = list[Path](), list[Any]()
    load, tree_hash = bases.huggingface.load, bases.huggingface.tree_hash

    def counted(folder: Path, *args: Any) -> Any:
        loads.append(folder)
        return load(folder, *args)

    def hashed(tree: Any) -> str:
        hashes.extend(
            name for name in tree if name == "embed_tokens"
        )  # of a base, not of an adapter
        return tree_hash(tree)

    bases._load.cache_clear()
    monkeypatch.setattr(bases.huggingface, "load", counted)
    monkeypatch.setattr(bases.huggingface, "tree_hash", hashed)
    for name in ("bua", "bua_stage2", "zero_shot", "bua_no_rounds"):
        own = STEPS[f"predict/{name}/test"].run(run)
        METHODS[name].load(asked_site(own, METHODS[name], "predict"))
    for name in ("pituning", "alphafuse"):
        base = neural.base_of(STEPS[f"fit/{name}"].run(run).config)
    assert base.digest
    assert (len(loads), len(hashes)) == (1, 1)


def test_another_base_is_another_load(tmp_path: Path, monkeypatch) -> None:
    folder = Path(shutil.copytree(bases.NANO, tmp_path / "base"))
    model = configs.load("configs/base.py").model.copy_and_resolve_references()
    model.path = str(folder)
    assert (one := bases.load_base(model)) is bases.load_base(model)
    path = folder / "config.json"
    files.write_json(path, {**files.read_json(path), "rms_norm_eps": 1e-3})
    assert bases.load_base(model).config.rms_norm_eps == 1e-3
    model.dtype = "bfloat16"
    assert str(bases.load_base(model).config.dtype) != str(one.config.dtype)


def test_a_site_gives_what_was_needed_alone(run: Run) -> None:
    own = STEPS["predict/bua/test"].run(run)
    site: Site = asked_site(own, METHODS["bua"], "predict")
    assert set(site.inputs) == {"data", "windows/test", "encoder", "stage3"}
    assert site.inputs["stage3"].settings.model.recall == 1
    assert site.config.execution.decode_batch == 16


def test_answers_that_cannot_be_scored_are_not_kept(run: Run, tmp_path: Path) -> None:
    """Nor scored, where a file has them."""
    again = Run(run.config, Path(shutil.copytree(run.workdir, tmp_path / "run")))
    step, method = STEPS["predict/majority/test"], METHODS["majority"]
    shutil.rmtree(again.folder(step.name))

    def halved(site: Site) -> Counted:
        own: Counted = method.load(site)
        return Counted(lambda seen: own.probabilities(seen) / 2, own.facts, rows=8)

    def build(run: Run) -> dict[str, Any]:
        bad = dataclasses.replace(method, load=halved)
        return built._build_result(run, bad, "predict", "test")

    with pytest.raises(DataError, match=r"The method majority: case \S+ has 0\.5, expected a"):
        ensure(again, step.name, {**STEPS, step.name: dataclasses.replace(step, build=build)})
    assert not list(again.folder(step.name).glob("*.partial"))
    ensure(again, step.name, STEPS)

    own = STEPS["evaluation"].run(again)
    store = load_store(own)
    frozen, more = load_set(own, "test", store), (*store.catalogue.behaviours, "one more")
    said = said_of(own, "predict", "test", store, frozen)
    boast = {
        name: dataclasses.replace(one, about={**one.about, "facts": {"rec_w": 1, "tau": 2}})
        for name, one in said.items()
    }
    one, other = (score_predictions(own, store, frozen, each) for each in (said, boast))
    assert other["majority"]["rec_w"] == one["majority"]["rec_w"] < 1
    assert other["majority"]["tau"] == 2
    catalogue = dataclasses.replace(store.catalogue, behaviours=more)
    wider = dataclasses.replace(store, catalogue=catalogue)
    with pytest.raises(DataError, match=r"result\.arrow: .* expected 38 of each of 40 cases"):
        said_of(own, "predict", "test", wider, frozen)


@pytest.mark.parametrize(("name", "trainings"), [("sasrec", 1), ("alphafuse", 1), ("pituning", 3)])
def test_every_training_can_be_traced(
    run: Run, tmp_path: Path, monkeypatch, name: str, trainings: int
) -> None:
    seen: list[int] = []

    def fit(problem: Any, variables: Any, parts: Any, settings: Any, *rest: Any) -> Any:
        seen.append(settings.profile)
        return {part: variables[part] for part in parts}, {}

    monkeypatch.setattr(events, "fit", fit)
    config = run.config.copy_and_resolve_references()
    config.execution.profile = 3
    copy = Run(config, Path(shutil.copytree(run.workdir, tmp_path / "run")))
    built._build_fit(STEPS[f"fit/{name}"].run(copy), METHODS[name])
    assert seen == [3] * trainings
