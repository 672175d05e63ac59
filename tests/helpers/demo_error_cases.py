"""Demonstrations with one thing wrong each, and what the message about it must say."""

import shutil
from pathlib import Path

import numpy as np

import damaged_demos as bad
from cli_error_cases import INFO, TRAIN, case, nothing

LEROBOT, MINARI = "d/meta/info.json", "d/data/metadata.json"


def demo(name, words, make, *says):
    """`words` are what is run, or the path alone for `demos info`."""
    return case(name, words if " " in words else f"{INFO} {words}", *says, make=make)


DEMOS = [
    demo("nothing there", f"{TRAIN} --demos gone.npz", nothing, "gone.npz", "no such file or folder"),
    demo("empty file", "d.npz", bad.text("d.npz", ""), "d.npz", "npz"),
    demo("unknown format", "d.txt", bad.text("d.txt", "hello"), "d.txt", "no known format", "npz"),
    demo("empty folder", ".", nothing, "no known format"),
    demo("npz that is text", "d.npz", bad.text("d.npz", "hello"), "d.npz cannot be read as npz"),
    demo(
        "npz that is hdf5",
        "d.npz",
        bad.also(bad.hdf5(), lambda: shutil.move("d.hdf5", "d.npz")),
        "d.npz cannot be read as npz",
    ),
    demo("hdf5 that is text", "d.hdf5", bad.text("d.hdf5", "hello"), "d.hdf5", "no known format"),
    demo("npz cut short", "d.npz", bad.cut("d.npz", bad.npz()), "d.npz"),
    demo("hdf5 cut short", "d.hdf5", bad.cut("d.hdf5", bad.hdf5()), "d.hdf5"),
    demo(
        "parquet cut short",
        "d",
        bad.cut("d/data/chunk-000/file-000.parquet", bad.lerobot),
        "file-000.parquet cannot be read as Parquet",
    ),
    demo("pickle called npz", "d.npz", bad.pickled("d.npz"), "d.npz cannot be read", "without pickle"),
    demo("pickle called hdf5", "d.hdf5", bad.pickled("d.hdf5"), "d.hdf5", "no known format"),
    demo("pickle called pkl", "d.pkl", bad.pickled("d.pkl"), "d.pkl", "no known format"),
    demo("pickle in an npz", "d.npz", bad.pickled_member, "obs.npy holds Python objects", "without pickle"),
    demo("array larger than the file", "d.npz", bad.lying_member, "obs.npy is cut short"),
    demo("zip bomb", "d.npz", bad.zip_bomb, "d.npz", "taken for a bomb"),
    demo("hdf5 bomb unwritten", "d.hdf5", bad.hdf5(observations=bad.unwritten), "d.hdf5", "taken for a bomb"),
    demo("hdf5 bomb squeezed", "d.hdf5", bad.hdf5(infos=bad.squeezed), "d.hdf5", "taken for a bomb"),
    demo("hdf5 bomb of names", "d.hdf5", bad.hdf5(infos=bad.many_names), "d.hdf5", "bomb"),
    demo(
        "external link",
        "d.hdf5",
        bad.also(bad.other_file, bad.hdf5(observations=bad.external_link)),
        "'observations' is a link to another file",
    ),
    demo(
        "external link unused",
        "d.hdf5",
        bad.also(bad.other_file, bad.hdf5(infos=bad.external_link)),
        "'infos' is a link to another file",
    ),
    demo(
        "external link to a group",
        "d.hdf5",
        bad.also(bad.other_file, bad.robomimic_elsewhere),
        "'data' is a link to another file",
    ),
    demo(
        "external link below", "d.hdf5", bad.also(bad.other_file, bad.robomimic(link=True)), "'data/demo_0' is a link"
    ),
    demo(
        "external storage",
        "d.hdf5",
        bad.hdf5(observations=bad.external_raw),
        "'observations' has its numbers in another file",
    ),
    demo(
        "virtual array",
        "d.hdf5",
        bad.also(bad.other_file, bad.hdf5(observations=bad.virtual)),
        "'observations' has its numbers in another file",
    ),
    demo(
        "a name of several lines",
        "d.npz",
        bad.npz(obs=None, **{"a\nb\x1b[31m": np.zeros(1)}),
        "no 'obs'",
        r"a\nb\x1b[31m",
    ),
    demo(
        "a task of several lines",
        f"{TRAIN} --demos d.npz",
        bad.npz(task="x\ny\x1b[2J"),
        r"are of x\ny\x1b[2J, not of probe/point",
    ),
    demo("npz without obs", "d.npz", bad.npz(obs=None), "d.npz", "no 'obs'"),
    demo("npz of texts", "d.npz", bad.npz(action=np.full((2, 5, 2), "left")), "'action' holds", "expected numbers"),
    demo("complex numbers", "d.npz", bad.npz(obs=np.zeros((2, 6, 2), complex)), "'obs' holds complex128"),
    demo(
        "off by one", "d.npz", bad.npz(obs=np.zeros((2, 5, 2))), "episode 0", "5 observations for 5 actions, expected 6"
    ),
    demo("one too many", "d.npz", bad.npz(obs=np.zeros((2, 7, 2))), "7 observations for 5 actions, expected 6"),
    demo("reward off by one", "d.npz", bad.npz(reward=np.zeros((2, 6))), "reward has shape (6,), expected (5,)"),
    demo("episodes at odds", "d.npz", bad.npz(obs=np.zeros((3, 6, 2))), "expected [N, T, ...] with one N"),
    demo("lengths at odds", "d.npz", bad.npz(lengths=np.array([5, 5])), "'obs' has 2 rows, but 'lengths' asks"),
    demo("lengths overflow", "d.npz", bad.npz(lengths=np.array([2**62, 2**62])), "'lengths'"),
    demo(
        "no episodes", "d.npz", bad.npz(obs=np.zeros((0, 6, 2)), action=np.zeros((0, 5, 2))), "d.npz", "no trajectory"
    ),
    demo(
        "empty episode", "d.npz", bad.npz(obs=np.zeros((1, 1, 2)), action=np.zeros((1, 0, 2))), "episode 0", "no action"
    ),
    demo("nan", "d.npz", bad.spoiled("obs", (1, 3, 0), np.nan), "episode 1", "obs[3] is not finite"),
    demo("infinite obs", "d.npz", bad.spoiled("obs", (0, 0, 1), np.inf), "obs[0] is not finite"),
    demo("nan action", "d.npz", bad.spoiled("action", (0, 4, 1), np.nan), "action[4] is not finite"),
    demo("double beyond float32", "d.npz", bad.npz(obs=np.full((2, 6, 2), 1e300)), "obs[0] is not finite"),
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
        "are of metaworld/reach, not of probe/point",
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
    demo("no actions", f"{TRAIN} --demos d.npz", bad.npz(action=None), "no actions", "give a recording"),
    demo("discrete actions", "d.npz", bad.npz(action=np.zeros((2, 5), int)), "discrete actions"),
    demo("provenance", "d.npz", bad.npz(provenance="{"), "'provenance' is not JSON"),
    demo("no such observation", f"{INFO} d.npz --obs-keys state", bad.npz(), "no observation 'state'", "obs"),
    demo("d4rl without an end", "d.hdf5", bad.hdf5(timeouts=np.zeros(5, bool)), "neither 'terminals' nor 'timeouts'"),
    demo("d4rl rows at odds", "d.hdf5", bad.hdf5(actions=np.zeros((4, 2))), "differ in their number of rows"),
    demo("d4rl without terminals", "d.hdf5", bad.hdf5(terminals=None), "no 'terminals'"),
    demo("d4rl of texts", "d.hdf5", bad.hdf5(actions=np.array([b"left"] * 5)), "'actions' holds"),
    demo(
        "robomimic without obs", "d.hdf5", bad.robomimic(group="states"), "demo_0: no 'obs'", "dataset_states_to_obs.py"
    ),
    demo("maniskill without flags", "t.h5", bad.maniskill(truncated=None), "traj_0: no 'truncated'"),
    demo("maniskill without obs", "t.h5", bad.maniskill(obs=None), "no observations in it", "replay_trajectory"),
    demo("maniskill json", "t.h5", bad.also(bad.maniskill(), bad.text("t.json", "{")), "t.json is not JSON"),
    demo("minari without metadata", "d", bad.also(bad.minari, lambda: Path(MINARI).unlink()), "no known format"),
    demo("minari json", "d", bad.also(bad.minari, bad.text(MINARI, "[1,")), "metadata.json is not JSON"),
    demo("minari list", "d", bad.also(bad.minari, bad.text(MINARI, "[]")), "metadata.json", "JSON object"),
    demo(
        "minari kind",
        "d",
        bad.also(bad.minari, bad.edited(MINARI, lambda tree: tree.update(data_format="zarr"))),
        "data_format is 'zarr'",
        "hdf5, arrow and parquet",
    ),
    demo(
        "minari without data",
        "d",
        bad.also(bad.minari, lambda: Path("d/data/main_data.hdf5").unlink()),
        "main_data.hdf5",
        "cannot be read",
    ),
    demo(
        "minari link out",
        "d",
        bad.also(bad.minari, bad.link_out("d/data/main_data.hdf5")),
        "main_data.hdf5 is a link to",
        "put a copy",
    ),
    demo(
        "minari without rewards",
        "d",
        bad.also(
            bad.minari, bad.rewritten_hdf5("d/data/main_data.hdf5", lambda file: file.__delitem__("episode_0/rewards"))
        ),
        "episode_0: no 'rewards'",
    ),
    demo(
        "minari's notes",
        "d",
        bad.also(bad.minari, bad.edited(MINARI, lambda tree: tree.update(cdred=[3]))),
        "metadata.json",
        "'cdred'",
    ),
    demo(
        "lerobot version",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree.update(codebase_version="v9"))),
        "codebase_version is v9",
        "v3.0",
    ),
    demo(
        "lerobot climbs out",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree.update(data_path="../../x.parquet"))),
        "'data_path' names ../../x",
        "below it",
    ),
    demo(
        "lerobot from the root",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree.update(data_path="/etc/passwd"))),
        "'data_path' names /etc/passwd",
    ),
    demo(
        "lerobot link out", "d", bad.also(bad.lerobot, bad.link_out("d/data/chunk-000")), "is a link to", "put a copy"
    ),
    demo(
        "lerobot shape",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree["features"]["action"].update(shape=[3]))),
        "'action' has 2 numbers a row",
    ),
    demo(
        "lerobot bomb",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree["features"]["action"].update(shape=[2**40]))),
        "file-000.parquet",
        "bomb",
    ),
    demo(
        "lerobot without features",
        "d",
        bad.also(bad.lerobot, bad.edited(LEROBOT, lambda tree: tree.pop("features"))),
        "'features'",
    ),
    demo(
        "lerobot's missing file",
        "d",
        bad.also(bad.lerobot, lambda: Path("d/data/chunk-000/file-000.parquet").unlink()),
        "fetch the dataset again",
    ),
    demo("converting onto something", "demos convert d.npz d.npz", bad.npz(), "d.npz exists already"),
    demo(
        "converting what is broken",
        "demos convert d.npz out",
        bad.spoiled("obs", (0, 0, 0), np.nan),
        "obs[0] is not finite",
    ),
]
