import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from cdred.cli.main import main
from cdred.data.demonstrations import load_demos, save_demos
from cdred.demos.scripted import collect_scripted


@pytest.fixture
def wide(tmp_path):
    """Write a file of two episodes with actions in [0, 4] and without success."""
    path = tmp_path / "wide.npz"
    action = np.linspace(0, 4, 20).reshape(2, 5, 2)
    obs = np.random.default_rng(0).normal(size=(2, 6, 3))
    np.savez(path, obs=obs, action=action, reward=np.ones((2, 5)))
    return path


def run(capsys, *phrases):
    """Run `cdred demos` and return its exit code, standard output and standard error, each joined to one line."""
    code = main(["demos", *map(str, phrases)])
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), " ".join(captured.err.split())


@pytest.mark.parametrize(("name", "kind"), [("d", "is_dir"), ("d.npz", "is_file")])
def test_convert_rescales_and_saves_by_suffix(wide, tmp_path, capsys, name, kind):
    bounds = ("--action-low", "0", "--action-high", "4", "5")
    code, out, _ = run(capsys, "convert", wide, tmp_path / name, *bounds, "--task", "probe/point")
    assert code == 0
    assert "usable for training yes" in out
    assert getattr(tmp_path / name, kind)()
    dataset = load_demos(tmp_path / name)
    assert dataset.task == "probe/point"
    assert (dataset[0].action[0, 0], dataset[1].action[-1, -1]) == (-1, pytest.approx(0.6))
    assert dataset.provenance["actions_rescaled"]["high"] == [4.0, 5.0]


def test_convert_takes_the_bounds_of_the_task(tmp_path, capsys):
    path = tmp_path / "own.npz"
    np.savez(path, obs=np.zeros((1, 6, 3)), action=np.linspace(-2, 1, 5).reshape(1, 5, 1))
    assert run(capsys, "convert", path, tmp_path / "out", "--rescale-actions", "--task", "gym/Pendulum-v1")[0] == 0
    dataset = load_demos(tmp_path / "out")
    np.testing.assert_allclose(dataset[0].action.ravel(), np.linspace(-1, 0.5, 5))
    assert dataset.provenance["actions_rescaled"]["from"] == "the bounds of gym/Pendulum-v1"


def test_convert_without_known_bounds_is_refused(wide, tmp_path, capsys):
    code, _, error = run(capsys, "convert", wide, tmp_path / "out", "--rescale-actions")
    assert code == 2
    assert "does not declare the bounds of its actions" in error
    code, _, error = run(capsys, "convert", wide, tmp_path / "out", "--action-low", "0")
    assert code == 2
    assert "--action-low and --action-high are given together" in error


@pytest.fixture
def single_frames(tmp_path):
    """Write a file of one episode at action repeat 1, with actions held for two steps."""
    path = tmp_path / "single.npz"
    action = np.repeat(np.linspace(-1, 1, 5), 2)[None, :, None] * np.ones(6)
    task = np.array("dmc/walker-walk?repeat=1")
    np.savez(path, obs=np.zeros((1, 11, 24)), action=action, reward=np.ones((1, 10)), task=task)
    return path


def test_convert_folds_steps_and_renames_the_task(single_frames, tmp_path, capsys):
    pytest.importorskip("dm_control")
    code, out, _ = run(capsys, "convert", single_frames, tmp_path / "out", "--action-repeat", "2")
    assert code == 0
    assert "steps_folded {'recorded_at': 1, 'known_from': 'the file', 'dropped_steps': 0}" in out
    dataset = load_demos(tmp_path / "out")
    assert (dataset.task, len(dataset[0]), dataset[0].episode_return) == ("dmc/walker-walk", 5, 10)


def test_convert_refuses_a_task_at_another_action_repeat(single_frames, tmp_path, capsys):
    pytest.importorskip("dm_control")
    options = ("--task", "dmc/walker-walk?repeat=4", "--action-repeat", "2")
    code, _, error = run(capsys, "convert", single_frames, tmp_path / "out", *options)
    assert code == 2
    assert "another action repeat than --action-repeat 2: use --task dmc/walker-walk." in error
    assert not (tmp_path / "out").exists()


def test_convert_to_another_task_keeps_the_action_repeat(single_frames, tmp_path, capsys):
    assert run(capsys, "convert", single_frames, tmp_path / "out", "--task", "dmc/walker-walk")[0] == 0
    assert load_demos(tmp_path / "out").provenance["action_repeat"] == 1


def test_convert_lerobot_round_trip(wide, tmp_path, capsys):
    options = ("--format", "lerobot", "--action-low", "0", "--action-high", "4")
    assert run(capsys, "convert", wide, tmp_path / "robot", *options)[0] == 0
    assert (tmp_path / "robot/meta/info.json").exists()
    arguments = ("convert", tmp_path / "robot", tmp_path / "state", "--obs-keys", "observation.state")
    assert run(capsys, *arguments)[0] == 0
    assert len(load_demos(tmp_path / "state")[0]) == 5


def test_failed_convert_writes_nothing(wide, tmp_path, capsys):
    code, _, error = run(capsys, "convert", wide, tmp_path / "out")
    assert code == 2
    assert "expected [-1, 1]" in error
    assert "--rescale-actions" in error
    assert not (tmp_path / "out").exists()
    result = run(capsys, "convert", tmp_path / "missing", wide)
    assert result[2] == f"cdred: {wide} exists already: remove it, or choose another path."


def test_info_reports_unusable_demos(wide, tmp_path, capsys):
    code, out, _ = run(capsys, "info", wide, "--plot", tmp_path / "a.png")
    assert code == 1
    assert "episodes 2, 5 to 5 steps" in out
    assert "action (2,), from 0.00 to 4.00" in out
    assert "usable for training no good episodes 2 of 2 unfit" in out
    assert "expected [-1, 1]" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_info_json_is_valid_json(wide, capsys):
    assert main(["demos", "info", str(wide), "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["episodes"], summary["action"]["max"][1]) == (2, 4.0)
    (finding,) = summary["findings"]
    assert (finding["kind"], finding["severity"], summary["usable"]) == ("invalid", "unfit", False)
    assert "expected [-1, 1]" in finding["message"]


@pytest.fixture
def faulty(tmp_path):
    """Write six episodes: the first has a low return, the fifth equals the second, an action component is zero."""
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(6, 21, 4)), rng.uniform(-1, 1, (6, 20, 2))
    obs[4], action[4], action[..., 1] = obs[1], action[1], 0
    total = np.array([111.0, 3100, 3150, 3207, 3120, 3090])
    np.savez(tmp_path / "faulty.npz", obs=obs, action=action, reward=np.repeat(total[:, None] / 20, 20, axis=1))
    return tmp_path / "faulty.npz"


def test_info_names_episodes_and_components(faulty, capsys):
    code, out, _ = run(capsys, "info", faulty)
    assert code == 0
    assert "usable for training yes good episodes 4 of 6, not 0, 4" in out
    for text in ("episode 0 failed", "episodes 1, 4 are identical", "action component 1 of 2 never moves"):
        assert f"warning {text}" in out
    assert main(["demos", "info", str(faulty), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [(item["kind"], item["episodes"], item["components"]) for item in summary["findings"]] == [
        ("failure", [0], []),
        ("duplicate", [1, 4], []),
        ("constant_action", [], [1]),
    ]
    assert [item["findings"] for item in summary["episode_quality"]] == [["failure"], [], [], [], ["duplicate"], []]
    assert [item["return"] for item in summary["episode_quality"]][:2] == pytest.approx([111, 3100], rel=1e-6)


def test_demos_without_any_success_are_unfit(faulty, tmp_path, capsys):
    arrays = dict(np.load(faulty))
    np.savez(tmp_path / "failed.npz", **arrays, success=np.zeros((6, 20), bool))
    code, out, _ = run(capsys, "info", tmp_path / "failed.npz")
    assert code == 1
    assert "usable for training no good episodes 0 of 6, not 0-5 unfit 0 of 6 episodes succeed (0%)" in out


def test_convert_keeps_the_best_episodes(faulty, tmp_path, capsys):
    code, out, _ = run(capsys, "convert", faulty, tmp_path / "best", "--num", "2")
    assert code == 0
    assert "kept episodes 1-2 of 6 (failed: 0)" in out
    dataset = load_demos(tmp_path / "best")
    np.testing.assert_array_equal([demo.obs for demo in dataset], np.load(faulty)["obs"][1:3].astype(np.float32))
    assert dataset.provenance["selected_episodes"] == {"indices": [1, 2], "of": 6, "failed": [0]}
    code, _, error = run(capsys, "convert", faulty, tmp_path / "more", "--num", "7")
    assert (code, error) == (2, f"cdred: --num 7: {faulty} has 6 episodes to choose from.")
    assert run(capsys, "convert", faulty, tmp_path / "more", "--num", "0")[0] == 2
    assert not (tmp_path / "more").exists()


def test_convert_skips_bad_episodes(faulty, tmp_path, capsys):
    arrays = dict(np.load(faulty))
    arrays["obs"][2, 7, 1] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    code, _, error = run(capsys, "convert", tmp_path / "nan.npz", tmp_path / "good")
    assert (code, "episode 2: obs[7] is not finite" in error, "--skip-bad-episodes" in error) == (2, True, True)
    code, out, _ = run(capsys, "convert", tmp_path / "nan.npz", tmp_path / "good", "--skip-bad-episodes")
    assert code == 0
    assert "left out 3 of 6 episodes episode 0: failure episode 2: damaged: obs[7] is not finite (1 NaN" in out
    assert "episode 4: duplicate" in out
    dataset = load_demos(tmp_path / "good")
    np.testing.assert_array_equal([demo.action for demo in dataset], arrays["action"][[1, 3, 5]].astype(np.float32))
    assert list(dataset.provenance["skipped_episodes"]["reasons"]) == ["0", "2", "4"]


def test_minari_episode_without_final_observation_is_skipped(demos_folder, tmp_path, capsys):
    with h5py.File(demos_folder / "data/main_data.hdf5", "a") as file:
        group = file["episode_2"]
        obs = group["observations"][:-1]
        del group["observations"]
        group["observations"] = obs
    code, _, error = run(capsys, "convert", demos_folder, tmp_path / "good")
    assert (code, "episode 2: 5 observations for 5 actions" in error) == (2, True)
    code, out, _ = run(capsys, "convert", demos_folder, tmp_path / "good", "--skip-bad-episodes", "--num", "3")
    assert code == 0
    assert "left out 1 of 4 episodes episode 2: damaged: 5 observations for 5 actions, expected 6" in out
    assert "kept episodes 0-2 of 3" in out
    assert len(load_demos(tmp_path / "good")) == 3


@pytest.fixture
def demos_folder(tmp_path):
    """Write a Minari folder of four episodes."""
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(4, 6, 3)), rng.uniform(-1, 1, (4, 5, 2))
    np.savez(tmp_path / "four.npz", obs=obs, action=action)
    save_demos(load_demos(tmp_path / "four.npz"), tmp_path / "four")
    return tmp_path / "four"


@pytest.mark.parametrize(
    ("verb", "phrases"),
    [
        (
            "convert",
            (
                "SRC",
                "DST",
                "--task",
                "--import",
                "--obs-keys",
                "--camera",
                "--image-size",
                "--format",
                "--rescale-actions",
                "--action-low",
                "--action-high",
                "--num",
                "--skip-bad-episodes",
                "--action-repeat",
                "Images",
            ),
        ),
        ("info", ("--obs-keys", "--plot", "--json")),
        ("check", ("--task", "--import", "--obs-keys", "--num", "--tolerance")),
    ],
)
def test_help_lists_every_option(verb, phrases, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["demos", verb, "--help"])
    assert exit_.value.code == 0
    captured = capsys.readouterr().out
    assert all(phrase in captured for phrase in phrases)


@pytest.fixture(scope="module")
def recorded():
    """Return two episodes of `probe/point`."""
    return collect_scripted("probe/point", 2)


def test_check_reports_agreement(recorded, tmp_path, capsys):
    save_demos(recorded, tmp_path / "demos.npz")
    code, out, _ = run(capsys, "check", tmp_path / "demos.npz", "--task", "probe/point")
    assert code == 0
    assert f"0 {recorded[0].seed} 0 - " in out
    assert "2 of 2 replayed episodes agree with probe/point within 0.0001." in out


def test_check_reports_disagreement_with_exit_code_1(recorded, tmp_path, capsys):
    changed = replace(recorded[0], action=-recorded[0].action)
    unknown = replace(recorded[1], seed=None)
    save_demos(replace(recorded, trajectories=(changed, recorded[1], unknown)), tmp_path / "demos.npz")
    code, out, _ = run(capsys, "check", tmp_path / "demos.npz")
    assert code == 1
    assert "step 1 " in out
    assert "1 of 2 replayed episodes agree" in out
    assert "Not checked: 1 episodes without a seed." in out
    assert "First observations agree: the actions may be in other units" in out
    code, out, _ = run(capsys, "check", tmp_path / "demos.npz", "--num", "1", "--tolerance", "1000")
    assert code == 0
    assert "1 of 1 replayed" in out


def test_check_needs_seeds_and_a_task(tmp_path, capsys):
    np.savez(tmp_path / "seedless.npz", obs=np.zeros((1, 6, 4)), action=np.zeros((1, 5, 2)))
    code, _, error = run(capsys, "check", tmp_path / "seedless.npz")
    assert code == 2
    assert "it does not state its task, give --task" in error
    code, _, error = run(capsys, "check", tmp_path / "seedless.npz", "--task", "probe/point")
    assert code == 2
    assert "nothing can be checked, because no episode has a seed" in error
