"""Arbitrary input: a reader either makes valid demonstrations or settings of it, or raises `UserError`."""

import contextlib
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import fields
from pathlib import Path

import minari
import numpy as np
import pytest
import yaml
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy
from minari.data_collector import EpisodeBuffer
from test_d4rl import write as write_d4rl
from test_maniskill_h5 import write as write_maniskill
from test_robomimic import write as write_robomimic

from cdred.checkpoint import checkpoint
from cdred.config import RunConfig
from cdred.config_file import from_yaml, to_yaml
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.minari import save_minari
from cdred.data.formats.npz import save_npz
from cdred.data.validate import validated
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

HERE = Path(__file__).parent
KINDS = (
    "minari-hdf5",
    "minari-arrow",
    "minari-parquet",
    "lerobot-ours",
    "lerobot-v3.0",
    "robomimic",
    "maniskill",
    "d4rl",
    "npz-stacked",
    "npz-compressed",
    "checkpoint",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A small intact folder of every kind."""
    root = tmp_path_factory.mktemp("sources")
    demos = DemoDataset("probe/fake", (_trajectory(0), _trajectory(1)), {"expert": "made up"})
    save_minari(demos, root / "minari-hdf5")
    _write_minari(root, "arrow")
    _write_minari(root, "parquet")
    save_lerobot(demos, root / "lerobot-ours")
    shutil.copytree(HERE / "formats" / "lerobot" / "v3.0", root / "lerobot-v3.0")
    for name in ("robomimic", "maniskill", "d4rl", "npz-stacked", "npz-compressed"):
        (root / name).mkdir()
    write_robomimic(root / "robomimic/d.hdf5")
    write_maniskill(root / "maniskill/t.h5")
    write_d4rl(root / "d4rl/d.hdf5")
    np.savez(root / "npz-stacked/d.npz", obs=np.ones((2, 6, 3), np.float32), action=np.zeros((2, 5, 2)))
    save_npz(demos, root / "npz-compressed/d.npz")
    arrays = {"x": np.arange(12.0).reshape(3, 4), "n": np.arange(3), "flag": np.ones(2, bool)}
    checkpoint.save(root / "saved", 1, arrays, {"wall_seconds": 1.0}).rename(root / "checkpoint")
    return {kind: root / kind for kind in KINDS}


def _trajectory(draw):
    generator = np.random.default_rng(draw)
    obs, action = generator.normal(size=(6, 3)).astype(np.float32), generator.uniform(-1, 1, (5, 2)).astype(np.float32)
    return Trajectory(obs, action, np.ones(5, np.float32), False, True, np.zeros(5, bool), draw)


def _write_minari(root, kind):
    """What Minari itself writes in Arrow or Parquet."""
    ends = np.arange(4) == 3
    buffers = [
        EpisodeBuffer(
            id=index,
            seed=index,
            observations=np.ones((5, 3), np.float32),
            actions=np.zeros((4, 2), np.float32),
            rewards=np.ones(4),
            terminations=ends & False,
            truncations=ends,
            infos={"success": np.zeros(5, bool)},
        )
        for index in range(2)
    ]
    spaces = {"observation_space": Box(-9, 9, (3,)), "action_space": Box(-1, 1, (2,))}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("theirs-v0", buffers, data_format=kind, **spaces)
    (root / "theirs-v0").rename(root / f"minari-{kind}")


def fuzz(sources: list[Path], scratch: Path, first: int, count: int) -> Counter:
    """How many mutants of each kind were read and refused; those that ended otherwise are in the failure's message."""
    command = [
        sys.executable,
        str(HERE.parent / "helpers" / "fuzz.py"),
        str(scratch),
        str(first),
        str(count),
        *map(str, sources),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    bad = [line for line in lines if line[2:] not in (["read"], ["refused"])]
    # The last line is that of the mutant that it died of, if it did.
    assert (done.returncode, bad) == (0, []), done.stderr[-2000:]
    assert len(lines) == count * len(sources)
    return Counter((kind, told) for kind, _, told in lines)


def test_a_mutant_is_read_or_refused(sources, tmp_path):
    found = fuzz(list(sources.values()), tmp_path, 0, 40)
    assert all(found[kind, "refused"] >= 5 for kind in KINDS), found


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_five_thousand_mutants_of_each_kind_are_read_or_refused(sources, kind, tmp_path):
    found = fuzz([sources[kind]], tmp_path, 0, 5000)
    # Of a checkpoint hardly any survives its checksums.
    assert found[kind, "refused"] > 25, found
    assert found[kind, "read"] > 5, found


def _tried(read):
    """What `read` gives, or nothing and what it was refused with, in one to three lines."""
    try:
        return read(), ""
    except UserError as error:
        said = str(error)
    assert 1 <= len(said.splitlines()) <= 3, said
    return None, said


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), below, max_size=4),
    max_leaves=12,
)
NAMES = [field.name for field in fields(RunConfig)]


@given(TREES | st.dictionaries(st.sampled_from(NAMES), TREES, max_size=4))
def test_any_tree_is_settings_that_survive_their_file_or_refused(tree):
    text = yaml.safe_dump(tree)
    config, said = _tried(lambda: from_yaml(text))
    assert len(said) < 600
    if config is not None:
        # Compared as text, in which not-a-number is itself.
        assert to_yaml(from_yaml(to_yaml(config))) == to_yaml(config)


@given(st.text() | st.text("[]{}:-,&*!?|>'\"%@`#\n ab1"))
def test_any_text_is_settings_or_refused(text):
    with contextlib.suppress(UserError):
        from_yaml(text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_brackets_without_end_are_refused(opening):
    with pytest.raises(UserError):
        from_yaml(opening * 2000)


@given(
    numpy.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 3)) | st.tuples(st.integers(0, 4))),
    numpy.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 3)) | st.tuples(st.integers(0, 4))),
    numpy.arrays(np.float32, st.tuples(st.integers(0, 4)) | st.tuples(st.integers(0, 4), st.integers(0, 2))),
    st.booleans(),
)
def test_any_arrays_are_valid_or_refused(obs, action, reward, terminated):
    dataset = DemoDataset("", (Trajectory(obs, action, reward, terminated, not terminated),))
    found, said = _tried(lambda: validated(dataset, "these", allow_variable_horizon=True))
    assert said.startswith("" if found else "these")
    for one in found or ():
        assert (len(one.obs), len(one.action), one.reward.shape) == (len(one) + 1, len(one), (len(one),))
        assert np.abs(one.action).max(initial=0.0) <= 1
        assert all(np.isfinite(values).all() for values in (one.obs, one.action, one.reward))
