"""Fuzz tests: readers either return valid demonstrations or settings, or raise `UserError`."""

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
from gymnasium.spaces import Box, Dict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy
from minari.data_collector import EpisodeBuffer

import camera_files
from cdred.checkpoint import checkpoint
from cdred.config import RunConfig
from cdred.config_file import from_yaml, to_yaml
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.minari import save_minari
from cdred.data.formats.npz import save_npz
from cdred.data.validate import validate_demos
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory
from demo_files import write_d4rl, write_imitation, write_maniskill, write_robomimic

FOLDER = Path(__file__).parent
VECTOR, ONES = Box(-9, 9, (3,)), np.ones((5, 3), np.float32)
KINDS = (
    "minari-hdf5",
    "minari-arrow",
    "minari-parquet",
    "lerobot-ours",
    "lerobot-v3.0",
    "lerobot-video-images",
    "lerobot-png-images",
    "minari-images",
    "robomimic",
    "robomimic-images",
    "maniskill",
    "d4rl",
    "npz-stacked",
    "npz-compressed",
    "imitation",
    "checkpoint",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Write a small intact folder of every kind; returns the folders by kind."""
    root = tmp_path_factory.mktemp("sources")
    demos = DemoDataset("probe/fake", (_trajectory(0), _trajectory(1)), {"expert": "made up"})
    save_minari(demos, root / "minari-hdf5")
    _write_minari(root, "arrow")
    _write_minari(root, "parquet")
    save_lerobot(demos, root / "lerobot-ours")
    shutil.copytree(FOLDER / "formats" / "lerobot" / "v3.0", root / "lerobot-v3.0")
    camera_files.write_lerobot(root / "lerobot-video-images")
    camera_files.write_lerobot(root / "lerobot-png-images", kind="image")
    images = Dict(eye=Box(0, 255, (32, 40, 3), np.uint8), state=VECTOR)
    values = {"eye": np.full((5, 32, 40, 3), 99, np.uint8), "state": ONES}
    _write_minari(root, "hdf5", images, values, "minari-images")
    for name in ("robomimic", "robomimic-images", "maniskill", "d4rl", "npz-stacked", "npz-compressed", "imitation"):
        (root / name).mkdir()
    write_robomimic(root / "robomimic/d.hdf5")
    camera_files.write_robomimic(root / "robomimic-images/d.hdf5")
    write_maniskill(root / "maniskill/t.h5")
    write_d4rl(root / "d4rl/d.hdf5")
    write_imitation(root / "imitation/d.npz")
    np.savez(root / "npz-stacked/d.npz", obs=np.ones((2, 6, 3), np.float32), action=np.zeros((2, 5, 2)))
    save_npz(demos, root / "npz-compressed/d.npz")
    arrays = {"x": np.arange(12.0).reshape(3, 4), "n": np.arange(3), "flag": np.ones(2, bool)}
    checkpoint.save(root / "saved", 1, arrays, {"wall_seconds": 1.0}).rename(root / "checkpoint")
    return {kind: root / kind for kind in KINDS}


def _trajectory(seed):
    generator = np.random.default_rng(seed)
    obs, action = generator.normal(size=(6, 3)).astype(np.float32), generator.uniform(-1, 1, (5, 2)).astype(np.float32)
    return Trajectory(obs, action, np.ones(5, np.float32), False, True, np.zeros(5, bool), seed)


def _write_minari(root, kind, space=VECTOR, observations=ONES, name=None):
    """Let Minari itself write a dataset of two episodes, named after its kind unless a name is given."""
    ends = np.arange(4) == 3
    buffers = [
        EpisodeBuffer(
            id=index,
            seed=index,
            observations=observations,
            actions=np.zeros((4, 2), np.float32),
            rewards=np.ones(4),
            terminations=ends & False,
            truncations=ends,
            infos={"success": np.zeros(5, bool)},
        )
        for index in range(2)
    ]
    spaces = {"observation_space": space, "action_space": Box(-1, 1, (2,))}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("theirs-v0", buffers, data_format=kind, **spaces)
    (root / "theirs-v0").rename(root / (name or f"minari-{kind}"))


def count_outcomes(sources: list[Path], scratch: Path, first: int, count: int) -> Counter:
    """Read mutants of each kind and count (kind, outcome); fails if any was neither read nor rejected."""
    command = [
        sys.executable,
        str(FOLDER.parent / "helpers" / "fuzz.py"),
        str(scratch),
        str(first),
        str(count),
        *map(str, sources),
    ]
    process = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split(maxsplit=2) for line in process.stdout.splitlines()]
    failures = [line for line in lines if line[2:] not in (["read"], ["rejected"])]
    # If the process crashed, the last line names the mutant that caused it.
    assert (process.returncode, failures) == (0, []), process.stderr[-2000:]
    assert len(lines) == count * len(sources)
    return Counter((kind, outcome) for kind, _, outcome in lines)


def test_mutants_are_read_or_rejected(sources, tmp_path):
    counts = count_outcomes(list(sources.values()), tmp_path, 0, 40)
    assert all(counts[kind, "rejected"] >= 5 for kind in KINDS), counts


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutants_are_read_or_rejected(sources, kind, tmp_path):
    counts = count_outcomes([sources[kind]], tmp_path, 0, 5000)
    # Hardly any mutant of a checkpoint passes its checksums.
    assert counts[kind, "rejected"] > 25, counts
    assert counts[kind, "read"] > 5, counts


def _result_or_message(read):
    """Return the result of `read` and "", or None and the message of its `UserError`, which has one to three lines."""
    try:
        return read(), ""
    except UserError as error:
        message = str(error)
    assert 1 <= len(message.splitlines()) <= 3, message
    return None, message


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda child: st.lists(child, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), child, max_size=4),
    max_leaves=12,
)
NAMES = [field.name for field in fields(RunConfig)]


@given(TREES | st.dictionaries(st.sampled_from(NAMES), TREES, max_size=4))
def test_any_yaml_round_trips_or_is_rejected(tree):
    text = yaml.safe_dump(tree)
    config, message = _result_or_message(lambda: from_yaml(text))
    assert len(message) < 600
    if config is not None:
        # Compared as text, because NaN does not equal itself.
        assert to_yaml(from_yaml(to_yaml(config))) == to_yaml(config)


@given(st.text() | st.text("[]{}:-,&*!?|>'\"%@`#\n ab1"))
def test_any_text_parses_or_raises_user_error(text):
    config, _ = _result_or_message(lambda: from_yaml(text))
    assert config is None or isinstance(config, RunConfig)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_rejected(opening):
    with pytest.raises(UserError):
        from_yaml(opening * 2000)


@given(
    numpy.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 3)) | st.tuples(st.integers(0, 4))),
    numpy.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 3)) | st.tuples(st.integers(0, 4))),
    st.none()
    | numpy.arrays(np.float32, st.tuples(st.integers(0, 4)) | st.tuples(st.integers(0, 4), st.integers(0, 2))),
    st.booleans(),
)
def test_any_arrays_are_valid_or_rejected(obs, action, reward, terminated):
    dataset = DemoDataset("", (Trajectory(obs, action, reward, terminated, not terminated),))
    counts, message = _result_or_message(lambda: validate_demos(dataset, "these", allow_variable_horizon=True))
    assert message.startswith("" if counts else "these")
    for trajectory in counts or ():
        assert (len(trajectory.obs), len(trajectory.action)) == (len(trajectory) + 1, len(trajectory))
        assert trajectory.reward is None or trajectory.reward.shape == (len(trajectory),)
        assert np.abs(trajectory.action).max(initial=0.0) <= 1
        arrays = [trajectory.obs, trajectory.action, *([] if trajectory.reward is None else [trajectory.reward])]
        assert all(np.isfinite(values).all() for values in arrays)
