"""Checkpoints: exact, atomic, and clear about what does not fit."""

from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.checkpoint import checkpoint
from cdred.errors import UserError
from disk_faults import faults


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


def raw(leaf) -> tuple:
    leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    host = np.asarray(leaf)
    return host.shape, host.dtype, host.tobytes()


def assert_same(left, right) -> None:
    left, right = (eqx.filter(tree, checkpoint._is_array) for tree in (left, right))
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(one, jax.Array) == isinstance(other, jax.Array)
        assert raw(one) == raw(other)


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    saved, like = make_state(1), make_state(2)
    folder = checkpoint.save(tmp_path, 1500, saved, {"task": "t"})
    restored, meta = checkpoint.load(folder, like)
    assert folder.name == "000001500"
    assert meta == {"task": "t"}
    assert_same(restored, saved)
    assert restored.extras["name"] == "static 2"
    assert bool((jax.random.bits(restored.extras["keys"][1]) == jax.random.bits(saved.extras["keys"][1])).all())


def test_loads_into_shapes_alone_and_into_a_subtree(tmp_path: Path) -> None:
    saved = make_state(1)
    folder = checkpoint.save(tmp_path, 1, saved, {})
    shapes = eqx.filter_eval_shape(lambda: make_state(2).learner)
    restored, _ = checkpoint.load(folder, shapes, prefix="learner")
    assert_same(restored, saved.learner)
    alone, _ = checkpoint.load(folder, jax.ShapeDtypeStruct((), jnp.int32), prefix="extras/count")
    assert int(alone) == 1


def test_names_are_readable_paths(tmp_path: Path) -> None:
    index = checkpoint._read_index(checkpoint.save(tmp_path, 1, make_state(1), {}))
    assert index["arrays"]["learner/layers/0/weight"] == {"shape": [4, 2], "dtype": "float32"}
    assert index["arrays"]["extras/key"] == {"shape": [], "dtype": "key<fry>", "impl": "threefry2x32"}
    assert index["step"] == 1


@pytest.mark.parametrize("stage", ["_put", "_publish", "flush"])
def test_a_killed_save_leaves_the_previous_one_latest(tmp_path: Path, monkeypatch, stage: str) -> None:
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


def test_a_killed_removal_hides_the_old_one(tmp_path: Path, monkeypatch) -> None:
    checkpoint.save(tmp_path, 1, make_state(1), {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, make_state(2), {}, keep=1)
    assert [path.name for path in checkpoint._steps(tmp_path)] == ["000000002"]


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        checkpoint.save(tmp_path, step, {"x": jnp.zeros(1)}, {}, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000010", "000000011"]
    checkpoint.save(tmp_path, 11, {"x": jnp.ones(1)}, {"again": True}, keep=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000011"]
    assert checkpoint.load(tmp_path / "000000011", {"x": jnp.zeros(1)})[1] == {"again": True}


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None


def test_misfits_are_told(tmp_path: Path) -> None:
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


def test_damage_is_told(tmp_path: Path) -> None:
    like = {"x": jnp.zeros((2, 3))}
    folder = checkpoint.save(tmp_path, 1, like, {})
    arrays, index = folder / checkpoint.ARRAYS, folder / checkpoint.INDEX
    arrays.write_bytes(arrays.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"state.safetensors is damaged"):
        checkpoint.load(folder, like)
    index.write_text(index.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(UserError, match="format 99, this cdred reads 2"):
        checkpoint.load(folder, like)
    index.write_text("{")
    with pytest.raises(UserError, match="Remove the folder 000000001"):
        checkpoint.load(folder, like)


def attempts(root: Path, since: Path):
    """The second and third saves of a small run, and a best; each at a folder that holds the one before."""
    yield lambda: checkpoint.save(root, 2, make_state(2), {}, keep=2, since=since)
    yield lambda: checkpoint.save_best(root, 2, make_state(2).learner, {}, [2.0])


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_killed_at_any_change_to_a_file_the_last_good_ones_stand(tmp_path: Path, which: int, torn: bool) -> None:
    """Every instant of a save: between any two things that it does to the disk, and in the middle of a file."""

    def prepared(root: Path) -> Path:
        checkpoint.save_best(root, 0, make_state(0).learner, {}, [1.0])
        checkpoint.save(root, 0, make_state(0), {}, keep=2)
        return checkpoint.save(root, 1, make_state(1), {}, keep=2)

    counting = tmp_path / "counting"
    since = prepared(counting)
    with faults(counting) as counted:
        list(attempts(counting, since))[which]()
    assert counted.count > 5
    for at in range(1, counted.count + 1):
        root = tmp_path / str(at)
        since = prepared(root)
        attempt = list(attempts(root, since))[which]
        with faults(root, at, torn=torn):
            attempt()
        step = int(checkpoint.latest(root).name)
        assert_same(checkpoint.load(checkpoint.latest(root), make_state(9))[0], make_state(step))
        kept = checkpoint.best(root)
        assert_same(checkpoint.load(kept, make_state(9).learner)[0], make_state(int(kept.name[-9:])).learner)
        attempt()
        names = [path.name for path in sorted(root.iterdir()) if not path.name.startswith(checkpoint.UNFINISHED)]
        assert (
            names
            == (
                ["000000001", "000000002", "best-000000000"],
                ["000000000", "000000001", "best-000000002"],
            )[which]
        )


def test_full_at_any_file_the_checkpoint_before_stands_alone_and_a_line_says_what_to_do(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 1, make_state(1), {})
    with faults(tmp_path, full=True) as counted:
        checkpoint.save(tmp_path, 2, make_state(2), {}, keep=1, since=first)
    first = checkpoint.save(tmp_path, 3, make_state(1), {}, keep=1)
    for at in range(1, counted.count + 1):
        with faults(tmp_path, at, full=True), pytest.raises(UserError) as told:
            checkpoint.save(tmp_path, 4, make_state(2), {}, keep=1, since=first)
        if at < counted.count:  # the last one is the removal of the old checkpoint
            assert [path.name for path in tmp_path.iterdir()] == [first.name]
            assert str(told.value).count("\n") == 1
            for said in (str(tmp_path), "No space left on device", "It takes 0.0 MiB", "MiB are free", "same command"):
                assert said in str(told.value)


def test_the_best_is_the_greatest_score_ever_given(tmp_path: Path) -> None:
    kept = []
    for step, score in enumerate(
        [[0.5, -3.0], [0.5, -4.0], [0.5, -2.0], [float("nan"), 9.0], [1.0, -9.0], [1.0, -9.0]]
    ):
        checkpoint.save_best(tmp_path, step, {"x": jnp.full(1, float(step))}, {"note": step}, score)
        kept.append(int(checkpoint.best(tmp_path).name.removeprefix(checkpoint.BEST)))
    assert kept == [0, 0, 2, 2, 4, 4]
    best, meta = checkpoint.load(checkpoint.best(tmp_path), {"x": jnp.zeros(1)})
    assert (best["x"].tolist(), meta) == ([4.0], {"note": 4, "score": [1.0, -9.0]})
    assert checkpoint.latest(tmp_path) is None  # a run is not resumed from its best
    checkpoint.forget_best(tmp_path)
    assert checkpoint.best(tmp_path) is None
