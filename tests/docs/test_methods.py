"""The tables of the pages of methods: functions, metrics and options exist, and each metric is logged by the method."""

import importlib
import inspect
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import cdred
from cdred import RunConfig, preset
from cdred.algos.base import Batch, Selected
from cdred.algos.factory import make_algorithm
from cdred.cli.options import options_of
from cdred.config import AlgoName
from cdred.types import EnvSpec, Segment

DOCS = Path(__file__).parents[2] / "docs"
# Algorithms of each page, the one of whose metrics it has a table first.
ALGOS = {
    "bc": ("bc",),
    "cdred": ("cdred",),
    "gail": ("gail",),
    "iq_mpc": ("iqmpc",),
    "iqlearn_sac": ("iqlearn-sac", "cdred-sac", "gail-sac", "red-sac"),
    "pretraining": ("cdred",),
    "red": ("red",),
    "tdmpc2": ("tdmpc2",),
    "world_model": ("cdred",),
}
ROW = re.compile(r"^\| (\d+) \|([^|]+)\|([^|]+)\|([^|]*)\|([^|]*)\|$", re.M)
# Metrics that the training loop computes, with what the method must log for them.
OF_THE_LOOP = {"reward_margin": "reward_expert"} | dict.fromkeys(
    ("detected_success", "detector_precision", "detector_recall"), "self_imitation_loss"
)
KEY = jax.random.key(0)
each_page = pytest.mark.parametrize("page", ALGOS)


def rows(page):
    """Return the rows of the table of a page: number, quantity, function, metric and option."""
    return ROW.findall((DOCS / "methods" / f"{page}.md").read_text())


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


@cache
def logged(algo):
    """Return the metrics of an update, of pretraining and of diagnostics, from shapes."""
    config = replace(preset("debug"), algo=algo, task="probe/point", num_validation_demos=1)
    config = replace(config, pretrain=replace(config.pretrain, self_imitation_coef=1.0))
    algorithm = make_algorithm(config, EnvSpec("probe/point", (4,), 2, 20, has_success=True, can_terminate=True))
    n, h = config.optim.batch_size, config.mppi.horizon
    segments = Segment(
        obs=jnp.zeros((n, h + 1, 4)),
        action=jnp.zeros((n, h, 2)),
        reward=jnp.zeros((n, h)),
        absorbing=jnp.zeros((n, h + 1), bool),
    )
    batch = Batch(
        expert=segments if algorithm.uses_demos else None,
        agent=segments if algorithm.uses_env else None,
        validation=segments,
        selected=Selected(segments, jnp.array(True)) if algorithm.pretraining else None,
    )

    def metrics():
        state = algorithm.init(KEY)
        update = algorithm.update(state, batch if not algorithm.uses_env else batch._replace(validation=None), KEY)[1]
        found = update | algorithm.diagnostics(state, batch, segments, jnp.ones(n, bool), KEY)
        if algorithm.pretraining:
            pretraining = algorithm.pretraining.init(state.model)
            found |= algorithm.pretraining.update(pretraining, segments, KEY)[1]
        return found

    return set(jax.eval_shape(metrics))


def defines(module, name):
    """Return True if a module has a function or class, or one of its classes an attribute."""
    head, _, attribute = name.partition(".")
    if attribute:
        return hasattr(getattr(module, head, None), attribute)
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    return hasattr(module, name) or any(hasattr(cls, name) for cls in classes)


@each_page
def test_functions_exist(page):
    for number, _, cell, *_ in rows(page):
        file, *functions = names(cell)
        module = importlib.import_module(f"cdred.{file.removesuffix('.py').replace('/', '.')}")
        assert functions
        assert [name for name in functions if not defines(module, name)] == [], number


@each_page
def test_metrics_are_logged_by_the_method(page):
    named = {name for row in rows(page) for name in names(row[3])}
    assert named
    computed = logged(ALGOS[page][0])
    assert named - computed == {name for name in named & OF_THE_LOOP.keys() if OF_THE_LOOP[name] in computed}
    loop = "".join(path.read_text() for path in Path(cdred.__file__).parent.glob("train/*.py"))
    assert [name for name in named & OF_THE_LOOP.keys() if f'"{name}"' not in loop] == []


@each_page
def test_options_exist(page):
    known = options_of(RunConfig)
    named = {name for row in rows(page) for name in names(row[4])}
    groups = {name.rpartition(".")[0] + ".*" for name in known if "." in name}
    assert named - known.keys() - groups == set()


def test_every_algorithm_has_a_page():
    assert {algo for algos in ALGOS.values() for algo in algos} == set(AlgoName.__args__)
    listed = re.findall(r"^\| (`[^|]+`) \| \[[^]]+\]\((\w+)\.md\)", (DOCS / "methods" / "index.md").read_text(), re.M)
    pages = {algo: page for cell, page in listed for algo in names(cell)}
    assert pages.keys() == set(AlgoName.__args__)
    assert [algo for algo, page in pages.items() if algo not in ALGOS[page]] == []


def test_equations_have_unique_numbers_and_a_row():
    pages = {page: (DOCS / "methods" / f"{page}.md").read_text() for page in ALGOS}
    tagged = [(int(number), page) for page, text in pages.items() for number in re.findall(r"\\tag\{(\d+)\}", text)]
    assert sorted(number for number, _ in tagged) == list(range(1, len(tagged) + 1))
    without_row = [(number, page) for number, page in tagged if str(number) not in {row[0] for row in rows(page)}]
    assert without_row == []
