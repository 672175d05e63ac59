"""Checkpoints are exact, atomic, and report a structure that does not fit."""

from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.checkpoint import checkpoint
from cdred.checkpoint.arrays import is_array
from cdred.errors import UserError
from disk_faults import disk_faults


class State(NamedTuple):
    learner: eqx.nn.MLP
    extras: dict


def make_state(seed: int, width: int = 4) -> State:
    key = jax.random.key(seed)
    extras = {
        "key": key,
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "half": jax.random.normal(key, (3, 2)).astype(jnp.bfloat16),
        "flags": jnp.array([True, False]),
        "count": jnp.array(seed, jnp.int32),
        "not_a_number": jnp.array([jnp.nan, -0.0, jnp.inf]),
        "empty": jnp.zeros((0, 3)),
        "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T + seed,
        "number": np.float64(seed + 0.1),
        "pair": (jnp.arange(seed, seed + 3, dtype=jnp.uint8), None),
        "name": f"static {seed}",
    }
    return State(eqx.nn.MLP(2, 3, width, 2, key=key), extras)


def as_bytes(leaf) -> tuple:
    leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    host = np.asarray(leaf)
    return host.shape, host.dtype, host.tobytes()


def assert_bitwise_identical(left, right) -> None:
    left, right = (eqx.filter(tree, is_array) for tree in (left, right))
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(x, jax.Array) == isinstance(y, jax.Array)
        assert as_bytes(x) == as_bytes(y)


def test_round_trip_is_bitwise_identical(tmp_path: Path) -> None:
    saved, like = make_state(1), make_state(2)
    folder = checkpoint.save(tmp_path, 1500, saved, {"task": "t"})
    restored, meta = checkpoint.load(folder, like)
    assert folder.name == "000001500"
    assert meta == {"task": "t"}
    assert_bitwise_identical(restored, saved)
    assert restored.extras["name"] == "static 2"
    assert bool((jax.random.bits(restored.extras["keys"][1]) == jax.random.bits(saved.extras["keys"][1])).all())


def test_loads_into_shapes_and_into_a_subtree(tmp_path: Path) -> None:
    saved = make_state(1)
    folder = checkpoint.save(tmp_path, 1, saved, {})
    shapes = eqx.filter_eval_shape(lambda: make_state(2).learner)
    restored, _ = checkpoint.load(folder, shapes, prefix="learner")
    assert_bitwise_identical(restored, saved.learner)
    leaf, _ = checkpoint.load(folder, jax.ShapeDtypeStruct((), jnp.int32), prefix="extras/count")
    assert int(leaf) == 1


def test_names_are_readable_paths(tmp_path: Path) -> None:
    index = checkpoint._read_index(checkpoint.save(tmp_path, 1, make_state(1), {}))
    assert index["arrays"]["learner/layers/0/weight"] == {"shape": [4, 2], "dtype": "float32"}
    assert index["arrays"]["extras/key"] == {"shape": [], "dtype": "key<fry>", "impl": "threefry2x32"}
    assert index["step"] == 1


@pytest.mark.parametrize("stage", ["_write_file", "_commit", "fsync"])
def test_killed_save_leaves_the_previous_checkpoint_latest(tmp_path: Path, monkeypatch, stage: str) -> None:
    first = checkpoint.save(tmp_path, 1, make_state(1), {})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, make_state(2), {})
    assert checkpoint.latest(tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 2
    second = checkpoint.save(tmp_path, 2, make_state(2), {})
    assert checkpoint.latest(tmp_path) == second
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_killed_removal_hides_the_old_checkpoint(tmp_path: Path, monkeypatch) -> None:
    checkpoint.save(tmp_path, 1, make_state(1), {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, make_state(2), {}, keep=1)
    assert [path.name for path in checkpoint._steps(tmp_path)] == ["000000002"]


def test_save_keeps_the_newest_checkpoints(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        checkpoint.save(tmp_path, step, {"x": jnp.zeros(1)}, {}, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000010", "000000011"]
    checkpoint.save(tmp_path, 11, {"x": jnp.ones(1)}, {"repeated": True}, keep=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000011"]
    assert checkpoint.load(tmp_path / "000000011", {"x": jnp.zeros(1)})[1] == {"repeated": True}


def test_latest_of_an_absent_folder_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None


def test_other_structure_is_refused_naming_the_leaf(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, {"x": jnp.zeros((2, 3)), "y": jnp.zeros(1), "k": jax.random.key(0)}, {})
    likes = {
        r"`x` .* expected float32 of shape \(2, 4\), found float32 of shape \(2, 3\)": {"x": jnp.zeros((2, 4))},
        "`x` .* expected int32 .* found float32": {"x": jnp.zeros((2, 3), jnp.int32)},
        "`y` .* found float32 of shape": {"y": None},
        "`z` .* expected float32 .* found nothing": {"z": jnp.zeros(1)},
        "`k` .* expected key<rbg> .* found key<fry>": {"k": jax.random.key(0, impl="rbg")},
    }
    for message, change in likes.items():
        like = {"x": jnp.zeros((2, 3)), "y": jnp.zeros(1), "k": jax.random.key(0)} | change
        with pytest.raises(UserError, match=message):
            checkpoint.load(folder, like)


def test_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    like = {"x": jnp.zeros((2, 3))}
    folder = checkpoint.save(tmp_path, 1, like, {})
    arrays, index = folder / checkpoint.ARRAYS, folder / checkpoint.INDEX
    arrays.write_bytes(arrays.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"state.safetensors is damaged"):
        checkpoint.load(folder, like)
    index.write_text(index.read_text().replace(f'"format": {checkpoint.FORMAT}', '"format": 99'))
    with pytest.raises(UserError, match=f"format 99, this cdred reads {checkpoint.FORMAT}"):
        checkpoint.load(folder, like)
    index.write_text("{")
    with pytest.raises(UserError, match="Remove the folder 000000001"):
        checkpoint.load(folder, like)


def save_functions(root: Path, base: Path):
    """Make functions that save the next checkpoint, and the next best one."""
    yield lambda: checkpoint.save(root, 2, make_state(2), {}, keep=2, base=base)
    yield lambda: checkpoint.save_best(root, 2, make_state(2).learner, {}, [2.0])


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_save_killed_at_any_file_change_keeps_checkpoints(tmp_path: Path, which: int, torn: bool) -> None:
    """Kills between any two changes to the disk, and in the middle of a file."""

    def prepare(root: Path) -> Path:
        checkpoint.save_best(root, 0, make_state(0).learner, {}, [1.0])
        checkpoint.save(root, 0, make_state(0), {}, keep=2)
        return checkpoint.save(root, 1, make_state(1), {}, keep=2)

    counting = tmp_path / "counting"
    base = prepare(counting)
    with disk_faults(counting) as changes:
        list(save_functions(counting, base))[which]()
    assert changes.count > 5
    for at in range(1, changes.count + 1):
        root = tmp_path / str(at)
        base = prepare(root)
        save = list(save_functions(root, base))[which]
        with disk_faults(root, at, torn=torn):
            save()
        step = int(checkpoint.latest(root).name)
        assert_bitwise_identical(checkpoint.load(checkpoint.latest(root), make_state(9))[0], make_state(step))
        best = checkpoint.best(root)
        expected = make_state(int(best.name[-9:])).learner
        assert_bitwise_identical(checkpoint.load(best, make_state(9).learner)[0], expected)
        save()
        names = [path.name for path in sorted(root.iterdir()) if not path.name.startswith(checkpoint.UNFINISHED)]
        after_save = ["000000001", "000000002", "best-000000000"]
        after_save_best = ["000000000", "000000001", "best-000000002"]
        assert names == (after_save, after_save_best)[which]


def test_save_on_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 1, make_state(1), {})
    with disk_faults(tmp_path, full=True) as changes:
        checkpoint.save(tmp_path, 2, make_state(2), {}, keep=1, base=first)
    first = checkpoint.save(tmp_path, 3, make_state(1), {}, keep=1)
    for at in range(1, changes.count + 1):
        with disk_faults(tmp_path, at, full=True), pytest.raises(UserError) as error:
            checkpoint.save(tmp_path, 4, make_state(2), {}, keep=1, base=first)
        if at < changes.count:  # the last one is the removal of the old checkpoint
            assert [path.name for path in tmp_path.iterdir()] == [first.name]
            assert str(error.value).count("\n") == 1
            for text in (str(tmp_path), "No space left on device", "It takes 0.0 MiB", "MiB are free", "same command"):
                assert text in str(error.value)


def test_best_checkpoint_is_that_of_the_greatest_score(tmp_path: Path) -> None:
    best_steps = []
    scores = [[0.5, -3.0], [0.5, -4.0], [0.5, -2.0], [float("nan"), 9.0], [1.0, -9.0], [1.0, -9.0]]
    for step, score in enumerate(scores):
        checkpoint.save_best(tmp_path, step, {"x": jnp.full(1, float(step))}, {"note": step}, score)
        best_steps.append(int(checkpoint.best(tmp_path).name.removeprefix(checkpoint.BEST)))
    assert best_steps == [0, 0, 2, 2, 4, 4]
    best, meta = checkpoint.load(checkpoint.best(tmp_path), {"x": jnp.zeros(1)})
    assert (best["x"].tolist(), meta) == ([4.0], {"note": 4, "score": [1.0, -9.0]})
    assert checkpoint.latest(tmp_path) is None  # a run is not resumed from its best checkpoint
    checkpoint.remove_best(tmp_path)
    assert checkpoint.best(tmp_path) is None
