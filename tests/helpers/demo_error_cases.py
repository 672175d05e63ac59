"""Demonstration files with one defect each, and phrases that the error message must contain."""

import shutil
from pathlib import Path

import numpy as np

import damaged_demos as bad
from cli_error_cases import INFO, TRAIN, case, nothing

LEROBOT, MINARI = "d/meta/info.json", "d/data/metadata.json"


def demo(name, words, make, *phrases):
    """Return the case of running `words`, or `cdred demos info` if `words` is only a path."""
    return case(name, words if " " in words else f"{INFO} {words}", *phrases, make=make)


DEMOS = [
    demo("missing path", f"{TRAIN} --demos gone.npz", nothing, "gone.npz", "no such file or folder"),
    demo("empty file", "d.npz", bad.write_text("d.npz", ""), "d.npz", "npz"),
    demo("unknown format", "d.txt", bad.write_text("d.txt", "hello"), "d.txt", "no known format", "npz"),
    demo("empty folder", ".", nothing, "no known format"),
    demo("npz that is text", "d.npz", bad.write_text("d.npz", "hello"), "d.npz cannot be read as npz"),
    demo(
        "npz that is hdf5",
        "d.npz",
        bad.all_of(bad.hdf5(), lambda: shutil.move("d.hdf5", "d.npz")),
        "d.npz cannot be read as npz",
    ),
    demo("hdf5 that is text", "d.hdf5", bad.write_text("d.hdf5", "hello"), "d.hdf5", "no known format"),
    demo("npz truncated", "d.npz", bad.truncated("d.npz", bad.npz()), "d.npz"),
    demo("hdf5 truncated", "d.hdf5", bad.truncated("d.hdf5", bad.hdf5()), "d.hdf5"),
    demo(
        "parquet truncated",
        "d",
        bad.truncated("d/data/chunk-000/file-000.parquet", bad.lerobot),
        "file-000.parquet cannot be read as Parquet",
    ),
    demo("pickle called npz", "d.npz", bad.pickle_file("d.npz"), "d.npz cannot be read", "without pickle"),
    demo("pickle called hdf5", "d.hdf5", bad.pickle_file("d.hdf5"), "d.hdf5", "no known format"),
    demo("pickle called pkl", "d.pkl", bad.pickle_file("d.pkl"), "d.pkl", "no known format"),
    demo("pickle in an npz", "d.npz", bad.pickled_member, "obs.npy holds Python objects", "without pickle"),
    demo("array larger than the file", "d.npz", bad.oversized_member, "obs.npy is truncated"),
    demo("zip bomb", "d.npz", bad.zip_bomb, "d.npz", "decompression bomb"),
    demo("hdf5 bomb unwritten", "d.hdf5", bad.hdf5(observations=bad.unwritten_array), "d.hdf5", "decompression bomb"),
    demo("hdf5 bomb squeezed", "d.hdf5", bad.hdf5(infos=bad.compressed_zeros), "d.hdf5", "decompression bomb"),
    demo("hdf5 bomb of names", "d.hdf5", bad.hdf5(infos=bad.many_names), "d.hdf5", "bomb"),
    demo(
        "external link",
        "d.hdf5",
        bad.all_of(bad.other_file, bad.hdf5(observations=bad.external_link)),
        "'observations' is a link to another file",
    ),
    demo(
        "external link unused",
        "d.hdf5",
        bad.all_of(bad.other_file, bad.hdf5(infos=bad.external_link)),
        "'infos' is a link to another file",
    ),
    demo(
        "external link to a group",
        "d.hdf5",
        bad.all_of(bad.other_file, bad.linked_robomimic),
        "'data' is a link to another file",
    ),
    demo(
        "external link below", "d.hdf5", bad.all_of(bad.other_file, bad.robomimic(link=True)), "'data/demo_0' is a link"
    ),
    demo(
        "external storage",
        "d.hdf5",
        bad.hdf5(observations=bad.external_raw),
        "'observations' stores its numbers in another file",
    ),
    demo(
        "virtual array",
        "d.hdf5",
        bad.all_of(bad.other_file, bad.hdf5(observations=bad.virtual_array)),
        "'observations' stores its numbers in another file",
    ),
    demo(
        "key with control characters",
        "d.npz",
        bad.npz(obs=None, **{"a\nb\x1b[31m": np.zeros(1)}),
        "no 'obs'",
        r"a\nb\x1b[31m",
    ),
    demo(
        "task with control characters",
        f"{TRAIN} --demos d.npz",
        bad.npz(task="x\ny\x1b[2J"),
        r"are of x\ny\x1b[2J, expected probe/point",
    ),
    demo("npz without obs", "d.npz", bad.npz(obs=None), "d.npz", "no 'obs'"),
    demo("npz of text", "d.npz", bad.npz(action=np.full((2, 5, 2), "left")), "'action' holds", "expected numbers"),
    demo("complex numbers", "d.npz", bad.npz(obs=np.zeros((2, 6, 2), complex)), "'obs' holds complex128"),
    demo(
        "final observation missing",
        "d.npz",
        bad.npz(obs=np.zeros((2, 5, 2))),
        "episode 0",
        "5 observations for 5 actions, expected 6",
    ),
    demo(
        "one observation too many",
        "d.npz",
        bad.npz(obs=np.zeros((2, 7, 2))),
        "7 observations for 5 actions, expected 6",
    ),
    demo("one reward too many", "d.npz", bad.npz(reward=np.zeros((2, 6))), "reward has shape (6,), expected (5,)"),
    demo("different numbers of episodes", "d.npz", bad.npz(obs=np.zeros((3, 6, 2))), "expected [N, T, ...] with one N"),
    demo(
        "inconsistent lengths", "d.npz", bad.npz(lengths=np.array([5, 5])), "'obs' has 2 rows, but 'lengths' requires"
    ),
    demo("lengths overflow", "d.npz", bad.npz(lengths=np.array([2**62, 2**62])), "'lengths'"),
    demo(
        "no episodes", "d.npz", bad.npz(obs=np.zeros((0, 6, 2)), action=np.zeros((0, 5, 2))), "d.npz", "no trajectory"
    ),
    demo(
        "empty episode", "d.npz", bad.npz(obs=np.zeros((1, 1, 2)), action=np.zeros((1, 0, 2))), "episode 0", "no action"
    ),
    demo("nan", "d.npz", bad.with_value("obs", (1, 3, 0), np.nan), "episode 1", "obs[3] is not finite"),
    demo("infinite obs", "d.npz", bad.with_value("obs", (0, 0, 1), np.inf), "obs[0] is not finite"),
    demo("nan action", "d.npz", bad.with_value("action", (0, 4, 1), np.nan), "action[4] is not finite"),
    demo("float64 beyond float32", "d.npz", bad.npz(obs=np.full((2, 6, 2), 1e300)), "obs[0] is not finite"),
    demo("infinite reward", "d.npz", bad.npz(reward=np.full((2, 5), -np.inf)), "reward[0] is not finite"),
    demo(
        "action out of bounds",
        f"{TRAIN} --demos d.npz",
        bad.npz(action=np.full((2, 5, 2), 1.5)),
        "episode 0",
        "expected [-1, 1]",
        "--rescale-actions",
    ),
    demo(
        "mixed horizons",
        f"{TRAIN} --demos d.npz",
        bad.npz(obs=np.zeros((11, 4)), action=np.zeros((9, 2)), lengths=np.array([5, 4])),
        "d.npz",
        "4 to 5 steps",
        "--allow-variable-horizon",
    ),
    demo(
        "other task",
        f"{TRAIN} --demos d.npz",
        bad.npz(task="metaworld/reach"),
        "d.npz",
        "are of metaworld/reach, expected probe/point",
    ),
    demo(
        "other observations",
        f"{TRAIN} --demos d.npz",
        bad.npz(obs=np.zeros((2, 6, 3))),
        "one obs has shape (3,)",
        "probe/point",
    ),
    demo("other actions", f"{TRAIN} --demos d.npz", bad.npz(action=np.zeros((2, 5, 7))), "one action has shape (7,)"),
    demo(
        "longer than the task",
        f"{TRAIN} --demos d.npz",
        bad.npz(obs=np.zeros((1, 51, 4)), action=np.zeros((1, 50, 2))),
        "50 steps, but episodes",
    ),
    demo("no actions", f"{TRAIN} --demos d.npz", bad.npz(action=None), "no actions", "use a recording"),
    demo("discrete actions", "d.npz", bad.npz(action=np.zeros((2, 5), int)), "discrete actions"),
    demo("provenance", "d.npz", bad.npz(provenance="{"), "'provenance' is not JSON"),
    demo("no such observation", f"{INFO} d.npz --obs-keys state", bad.npz(), "no observation 'state'", "obs"),
    demo("d4rl without an end", "d.hdf5", bad.hdf5(timeouts=np.zeros(5, bool)), "neither 'terminals' nor 'timeouts'"),
    demo(
        "d4rl with different numbers of rows",
        "d.hdf5",
        bad.hdf5(actions=np.zeros((4, 2))),
        "differ in their number of rows",
    ),
    demo("d4rl without terminals", "d.hdf5", bad.hdf5(terminals=None), "no 'terminals'"),
    demo("d4rl of text", "d.hdf5", bad.hdf5(actions=np.full((5, 2), b"left")), "'actions' holds"),
    demo(
        "robomimic without obs", "d.hdf5", bad.robomimic(group="states"), "demo_0: no 'obs'", "dataset_states_to_obs.py"
    ),
    demo("maniskill without flags", "t.h5", bad.maniskill(truncated=None), "traj_0: no 'truncated'"),
    demo("maniskill without obs", "t.h5", bad.maniskill(obs=None), "no observations in it", "replay_trajectory"),
    demo("maniskill json", "t.h5", bad.all_of(bad.maniskill(), bad.write_text("t.json", "{")), "t.json is not JSON"),
    demo("minari without metadata", "d", bad.all_of(bad.minari, lambda: Path(MINARI).unlink()), "no known format"),
    demo("minari json", "d", bad.all_of(bad.minari, bad.write_text(MINARI, "[1,")), "metadata.json is not JSON"),
    demo("minari list", "d", bad.all_of(bad.minari, bad.write_text(MINARI, "[]")), "metadata.json", "JSON object"),
    demo(
        "minari kind",
        "d",
        bad.all_of(bad.minari, bad.edit_json(MINARI, lambda tree: tree.update(data_format="zarr"))),
        "data_format is 'zarr'",
        "hdf5, arrow and parquet",
    ),
    demo(
        "minari without data",
        "d",
        bad.all_of(bad.minari, lambda: Path("d/data/main_data.hdf5").unlink()),
        "main_data.hdf5",
        "cannot be read",
    ),
    demo(
        "minari with symlink",
        "d",
        bad.all_of(bad.minari, bad.symlink_out("d/data/main_data.hdf5")),
        "main_data.hdf5 is a link to",
        "replace it by a copy",
    ),
    demo(
        "minari without terminations",
        "d",
        bad.all_of(
            bad.minari, bad.edit_hdf5("d/data/main_data.hdf5", lambda file: file.__delitem__("episode_0/terminations"))
        ),
        "episode_0: no 'terminations'",
    ),
    demo(
        "minari with malformed cdred metadata",
        "d",
        bad.all_of(bad.minari, bad.edit_json(MINARI, lambda tree: tree.update(cdred=[3]))),
        "metadata.json",
        "'cdred'",
    ),
    demo(
        "lerobot version",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree.update(codebase_version="v9"))),
        "codebase_version is v9",
        "v3.0",
    ),
    demo(
        "lerobot with relative path outside",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree.update(data_path="../../x.parquet"))),
        "'data_path' names ../../x",
        "below it",
    ),
    demo(
        "lerobot with absolute path",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree.update(data_path="/etc/passwd"))),
        "'data_path' names /etc/passwd",
    ),
    demo(
        "lerobot with symlink",
        "d",
        bad.all_of(bad.lerobot, bad.symlink_out("d/data/chunk-000")),
        "is a link to",
        "replace it by a copy",
    ),
    demo(
        "lerobot shape",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree["features"]["action"].update(shape=[3]))),
        "'action' has 2 numbers per row",
    ),
    demo(
        "lerobot bomb",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree["features"]["action"].update(shape=[2**40]))),
        "info.json and the data files",
        "bomb",
    ),
    demo(
        "lerobot without features",
        "d",
        bad.all_of(bad.lerobot, bad.edit_json(LEROBOT, lambda tree: tree.pop("features"))),
        "'features'",
    ),
    demo(
        "lerobot with missing file",
        "d",
        bad.all_of(bad.lerobot, lambda: Path("d/data/chunk-000/file-000.parquet").unlink()),
        "fetch the dataset again",
    ),
    demo("convert onto an existing file", "demos convert d.npz d.npz", bad.npz(), "d.npz exists already"),
    demo(
        "convert invalid demonstrations",
        "demos convert d.npz out",
        bad.with_value("obs", (0, 0, 0), np.nan),
        "obs[0] is not finite",
    ),
]
