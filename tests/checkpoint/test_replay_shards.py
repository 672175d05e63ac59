"""The replay on the disk: what changed is written, all the rest shared, and what is read back is what was there."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.checkpoint import checkpoint, replay_shards
from cdred.data.replay_buffer import ReplayBuffer, Transition, rows_written_since
from cdred.errors import UserError
from cdred.types import EnvSpec
from runs import assert_same_arrays

SEEDS, LANES, CAPACITY, STEPS = 2, 3, 37, 5
add = jax.jit(jax.vmap(ReplayBuffer.add))


def new_replay(can_terminate: bool) -> ReplayBuffer:
    spec = EnvSpec("probe/fake", (3,), 2, 9, can_terminate=can_terminate)
    one = ReplayBuffer.init(spec, LANES, CAPACITY, 3)
    return jax.tree.map(lambda x: jnp.repeat(x[None], SEEDS, axis=0), one)


def reference_run(replay: ReplayBuffer, generator: np.random.Generator) -> ReplayBuffer:
    """`STEPS` steps of every lane; episodes end or are given up at random, so that lanes fall out of step."""
    lead = (SEEDS, STEPS, LANES)
    obs, after = generator.normal(size=(2, *lead, 3)).astype(np.float32)
    action, reward = generator.normal(size=(*lead, 2)).astype(np.float32), generator.normal(size=lead)
    terminated = generator.random(lead) < (0.2 if replay.tail else 0.0)
    void = generator.random(lead) < 0.03
    done = terminated | void | (generator.random(lead) < 0.2)
    return add(replay, Transition(obs, action, reward.astype(np.float32), after, terminated & ~void, done, void))


def host(replay: ReplayBuffer) -> dict[str, np.ndarray]:
    return {f"replay/{name}": np.asarray(getattr(replay, name)) for name in (*replay_shards.FIELDS, "head")}


@pytest.mark.parametrize("terminates", [False, True])
def test_no_row_changes_beyond_those_that_are_called_touched(can_terminate: bool) -> None:
    replay, generator, tight = new_replay(can_terminate), np.random.default_rng(0), 0
    for _ in range(40):
        before, replay = host(replay), reference_run(replay, generator)
        after = host(replay)
        bounds = (before["replay/head"], after["replay/head"], STEPS, CAPACITY, replay.tail)
        starts, counts = rows_written_since(*bounds)
        for seed, lane in np.ndindex(SEEDS, LANES):
            touched = (starts[seed, lane] + np.arange(counts[seed, lane])) % CAPACITY
            others = np.setdiff1d(np.arange(CAPACITY), touched)
            for name in replay_shards.FIELDS:
                one, other = (x[f"replay/{name}"][seed, lane, others] for x in (before, after))
                np.testing.assert_array_equal(one, other, err_msg=name)
            tight += len(others)
    assert tight > 1000  # else everything is called touched, and nothing was tested


def test_a_lane_written_all_around_is_touched_everywhere() -> None:
    _, counts = rows_written_since(np.array([4]), np.array([6]), CAPACITY, CAPACITY, 0)
    assert counts.tolist() == [CAPACITY]


@pytest.fixture
def small_files(monkeypatch) -> None:
    monkeypatch.setattr(replay_shards, "MOST_ROWS", 4)


def saves(root: Path, can_terminate: bool, count: int):
    """A run's saves, one after `STEPS` steps of each lane, each since the one before."""
    replay, generator, folder = new_replay(can_terminate), np.random.default_rng(1), None
    for index in range(count):
        replay = reference_run(replay, generator)
        folder = checkpoint.save(root, (index + 1) * STEPS * LANES, {"replay": replay}, {}, since=folder)
        yield replay, folder


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("terminates", [False, True])
def test_every_save_of_a_growing_and_wrapping_replay_is_read_back_bit_for_bit(tmp_path, can_terminate) -> None:
    shared = 0
    for replay, folder in saves(tmp_path, can_terminate, 16):
        assert_same_arrays(checkpoint.load_arrays(folder), host(replay))
        restored, _ = checkpoint.load(folder, {"replay": new_replay(can_terminate)})
        assert_same_arrays(host(restored["replay"]), host(replay))
        size = checkpoint.size(folder)
        shared += size.written < size.total
    assert shared > 8


@pytest.mark.usefixtures("small_files")
def test_a_save_writes_what_changed_and_shares_the_rest(tmp_path) -> None:
    states = list(saves(tmp_path, False, 4))
    old, new = sorted(path for path in tmp_path.iterdir())
    assert [old, new] == [folder for _, folder in states[2:]]
    files = [path.name for path in new.glob("replay-*")]
    shared = [name for name in files if (old / name).exists() and (old / name).samefile(new / name)]
    touched = replay_shards.ReplayShards("replay", states[3][0]).touched(
        {"head": states[2][0].head.tolist()}, STEPS
    )  # fmt: skip
    assert sorted(shared) == sorted(set(files) - touched)
    assert shared
    # Removing the old one takes nothing from the new one.
    for path in old.iterdir():
        path.unlink()
    assert_same_arrays(checkpoint.load_arrays(new), host(states[3][0]))


@pytest.mark.usefixtures("small_files")
def test_rows_never_written_to_are_not_stored(tmp_path) -> None:
    replay, folder = next(saves(tmp_path, False, 1))
    stored = {replay_shards.first_row("replay", path.name) for path in folder.glob("replay-*")}
    written = np.flatnonzero((np.asarray(replay.time) >= 0).any((0, 1)))
    assert stored == {4 * (row // 4) for row in written}
    assert len(stored) < CAPACITY // 4


@pytest.mark.usefixtures("small_files")
def test_without_links_files_are_copied(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    *_, (replay, folder) = saves(tmp_path, True, 5)
    assert_same_arrays(checkpoint.load_arrays(folder), host(replay))


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("harm", ["removed", "one file removed", "one file cut short"])
def test_what_the_checkpoint_before_has_lost_is_written_again(tmp_path, harm) -> None:
    run = saves(tmp_path, False, 3)
    next(run)
    _, folder = next(run)
    first = folder / replay_shards.file_name("replay", 0)
    if harm == "one file cut short":
        first.write_bytes(first.read_bytes()[:-8])
    for path in {"removed": folder.iterdir(), "one file removed": [first]}.get(harm, ()):
        path.unlink()
    replay, folder = next(run)
    assert_same_arrays(checkpoint.load_arrays(folder), host(replay))


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("name", ["replay-000000004.safetensors", checkpoint.ARRAYS, checkpoint.INDEX])
def test_a_single_flipped_bit_is_told_by_the_files_name(tmp_path, name) -> None:
    *_, (_, folder) = saves(tmp_path, False, 2)
    data = bytearray((folder / name).read_bytes())
    place = data.index(b'"step": ') + 8 if name == checkpoint.INDEX else len(data) - 1
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        checkpoint.load_arrays(folder)


def test_files_hold_a_bounded_number_of_bytes_however_many_lanes_there_are() -> None:
    shape = jax.ShapeDtypeStruct
    for lanes, capacity in ((1, 10**6), (4096, 1000), (2, 10)):
        replay = jax.eval_shape(
            lambda n=lanes, c=capacity: ReplayBuffer.init(EnvSpec("probe/fake", (39,), 4, 100), n, c, 3)
        )
        replay = jax.tree.map(lambda x: shape((1, *x.shape), x.dtype), replay)
        cut = replay_shards.ReplayShards("replay", replay)
        assert cut.size * cut.row_bytes <= replay_shards.FILE_BYTES
        assert cut.size <= min(replay_shards.MOST_ROWS, capacity)
        covered = [row for part in cut.parts.values() for row in part]
        assert covered == list(range(capacity))
