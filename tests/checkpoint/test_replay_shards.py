"""Replay shards: a save writes the changed ones and shares the others, and loading is exact."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.checkpoint import checkpoint, replay_shards
from cdred.checkpoint.arrays import named_arrays
from cdred.data.replay_buffer import ReplayBuffer, Transition, rows_written_since
from cdred.errors import UserError
from cdred.types import EnvSpec
from runs import assert_same_arrays

SEEDS, ENVS, CAPACITY, STEPS = 2, 3, 37, 5
add = jax.jit(jax.vmap(ReplayBuffer.add))


def new_replay(can_terminate: bool) -> ReplayBuffer:
    spec = EnvSpec("probe/fake", (3,), 2, 9, can_terminate=can_terminate)
    buffer = ReplayBuffer.init(spec, ENVS, CAPACITY, 3)
    return jax.tree.map(lambda x: jnp.repeat(x[None], SEEDS, axis=0), buffer)


def add_steps(replay: ReplayBuffer, generator: np.random.Generator) -> ReplayBuffer:
    """Add `STEPS` steps of every environment; episodes end or fail at random, so that insert indices differ."""
    lead = (SEEDS, STEPS, ENVS)
    obs, next_obs = generator.normal(size=(2, *lead, 3)).astype(np.float32)
    action, reward = generator.normal(size=(*lead, 2)).astype(np.float32), generator.normal(size=lead)
    terminated = generator.random(lead) < (0.2 if replay.num_absorbing else 0.0)
    invalid = generator.random(lead) < 0.03
    done = terminated | invalid | (generator.random(lead) < 0.2)
    reward = reward.astype(np.float32)
    return add(replay, Transition(obs, action, reward, next_obs, terminated & ~invalid, done, invalid))


def to_host(replay: ReplayBuffer) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in named_arrays(replay, "replay").items()}


@pytest.mark.parametrize("can_terminate", [False, True])
def test_rows_change_only_where_reported_as_written(can_terminate: bool) -> None:
    replay, generator, unchanged = new_replay(can_terminate), np.random.default_rng(0), 0
    for _ in range(40):
        before, replay = to_host(replay), add_steps(replay, generator)
        after = to_host(replay)
        bounds = (before["replay/insert_index"], after["replay/insert_index"], STEPS, CAPACITY, replay.num_absorbing)
        starts, counts = rows_written_since(*bounds)
        for seed, env in np.ndindex(SEEDS, ENVS):
            written = (starts[seed, env] + np.arange(counts[seed, env])) % CAPACITY
            others = np.setdiff1d(np.arange(CAPACITY), written)
            for name in before.keys() - {"replay/insert_index"}:
                old, new = (x[name][seed, env, others] for x in (before, after))
                np.testing.assert_array_equal(old, new, err_msg=name)
            unchanged += len(others)
    assert unchanged > 1000  # otherwise all rows are reported as written and nothing is tested


def test_full_round_of_the_ring_is_reported_as_all_rows() -> None:
    _, counts = rows_written_since(np.array([4]), np.array([6]), CAPACITY, CAPACITY, 0)
    assert counts.tolist() == [CAPACITY]


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(replay_shards, "MAX_SHARD_ROWS", 4)


def saves(root: Path, can_terminate: bool, count: int):
    """Save `count` times, every `STEPS` steps of each environment, each based on the previous checkpoint."""
    replay, generator, folder = new_replay(can_terminate), np.random.default_rng(1), None
    for index in range(count):
        replay = add_steps(replay, generator)
        folder = checkpoint.save(root, (index + 1) * STEPS * ENVS, {"replay": replay}, {}, base=folder)
        yield replay, folder


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("can_terminate", [False, True])
def test_saves_of_a_wrapping_buffer_load_bitwise_identically(tmp_path, can_terminate) -> None:
    shared = 0
    for replay, folder in saves(tmp_path, can_terminate, 16):
        assert_same_arrays(checkpoint.load_arrays(folder), to_host(replay))
        restored, _ = checkpoint.load(folder, {"replay": new_replay(can_terminate)})
        assert_same_arrays(to_host(restored["replay"]), to_host(replay))
        size = checkpoint.size(folder)
        shared += size.written < size.total
    assert shared > 8


@pytest.mark.usefixtures("small_shards")
def test_save_writes_dirty_shards_and_links_the_others(tmp_path) -> None:
    states = list(saves(tmp_path, False, 4))
    old, new = sorted(tmp_path.iterdir())
    assert [old, new] == [folder for _, folder in states[2:]]
    files = [path.name for path in new.glob("replay-*")]
    shared = [name for name in files if (old / name).exists() and (old / name).samefile(new / name)]
    metadata = {"insert_index": states[2][0].insert_index.tolist()}
    dirty = replay_shards.ReplayShards("replay", states[3][0]).dirty(metadata, STEPS)
    assert sorted(shared) == sorted(set(files) - dirty)
    assert shared
    # The new checkpoint does not need the old one.
    for path in old.iterdir():
        path.unlink()
    assert_same_arrays(checkpoint.load_arrays(new), to_host(states[3][0]))


@pytest.mark.usefixtures("small_shards")
def test_empty_shards_are_not_stored(tmp_path) -> None:
    replay, folder = next(saves(tmp_path, False, 1))
    stored = {replay_shards.first_row("replay", path.name) for path in folder.glob("replay-*")}
    written = np.flatnonzero((np.asarray(replay.episode_step) >= 0).any((0, 1)))
    assert stored == {4 * (row // 4) for row in written}
    assert len(stored) < CAPACITY // 4


@pytest.mark.usefixtures("small_shards")
def test_files_are_copied_where_links_are_unsupported(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("links are not supported")

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    *_, (replay, folder) = saves(tmp_path, True, 5)
    assert_same_arrays(checkpoint.load_arrays(folder), to_host(replay))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["removed", "one file removed", "one file truncated"])
def test_shards_missing_in_the_base_are_rewritten(tmp_path, damage) -> None:
    run = saves(tmp_path, False, 3)
    next(run)
    _, folder = next(run)
    first = folder / replay_shards.file_name("replay", 0)
    if damage == "one file truncated":
        first.write_bytes(first.read_bytes()[:-8])
    for path in {"removed": folder.iterdir(), "one file removed": [first]}.get(damage, ()):
        path.unlink()
    replay, folder = next(run)
    assert_same_arrays(checkpoint.load_arrays(folder), to_host(replay))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", ["replay-000000004.safetensors", checkpoint.ARRAYS, checkpoint.INDEX])
def test_flipped_bit_is_reported_with_the_file_name(tmp_path, name) -> None:
    *_, (_, folder) = saves(tmp_path, False, 2)
    data = bytearray((folder / name).read_bytes())
    place = data.index(b'"step": ') + 8 if name == checkpoint.INDEX else len(data) - 1
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        checkpoint.load_arrays(folder)


def test_shard_size_is_bounded_for_any_number_of_environments() -> None:
    shape = jax.ShapeDtypeStruct
    spec = EnvSpec("probe/fake", (39,), 4, 100)
    for num_envs, capacity in ((1, 10**6), (4096, 1000), (2, 10)):
        replay = jax.eval_shape(lambda n=num_envs, c=capacity: ReplayBuffer.init(spec, n, c, 3))
        replay = jax.tree.map(lambda x: shape((1, *x.shape), x.dtype), replay)
        shards = replay_shards.ReplayShards("replay", replay)
        assert shards.shard_rows * shards.row_bytes <= replay_shards.SHARD_BYTES
        assert shards.shard_rows <= min(replay_shards.MAX_SHARD_ROWS, capacity)
        covered = [row for rows in shards.row_ranges.values() for row in rows]
        assert covered == list(range(capacity))
