"""CDRED from demonstrations without actions, and the export of the runs to results/.

    python benchmarks/without_actions.py walker-walk --runs FOLDER [--input state] [--steps 5000]
    python benchmarks/without_actions.py reach --runs FOLDER
    python benchmarks/without_actions.py walker-run --runs FOLDER --episodes walker_run.npz --steps 20000

The first two use the 10 demonstrations of `--demos 10` and leave out their actions; `methods_table.py` makes the same
runs with actions. The last one uses the observations of the first of several public episodes, an array `obs` of
[episodes, 1001, 24] at action repeat 1 (github.com/arnavkj1995/SFM): every second one is an episode at action repeat 2.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from methods_table import RESULTS

import cdred
from cdred.config import RunConfig, without_actions
from cdred.demos.scripted import get_demos
from cdred.envs.registry import get_env_spec
from cdred.report.result_files import write_result_files
from cdred.run_folder import finished_result

TASKS = {"walker-walk": "dmc/walker-walk", "reach": "metaworld/reach", "walker-run": "dmc/walker-run"}
ACTION_REPEAT = 2


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--input", choices=("transition", "state"), default="transition", help="as --cdred.input")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--episodes", type=Path, help="file with the observations of public episodes")
    options = parser.parse_args()
    task, num = TASKS[options.name], 1 if options.episodes else 10
    label = f"cdred-{num}demos-without-actions-{options.input}-{options.steps}steps"
    demos = options.runs / f"{options.name}-{num}-without-actions.npz"
    if not demos.exists():
        demos.parent.mkdir(parents=True, exist_ok=True)
        cdred.save_demos(public_episode(task, options.episodes) if options.episodes else drop_actions(task), demos)
    config = RunConfig(
        **vars(cdred.preset("cpu"))
        | {
            "task": task,
            "demos": str(demos),
            "steps": options.steps,
            "seeds": (0, 1, 2),
            "final_eval_episodes": 10 if task.startswith("dmc/") else 40,
            "video": False,
            "cdred": replace(cdred.preset("cpu").cdred, input=options.input),
            "out": str(options.runs / f"{options.name}-{label}"),
        }
    )
    # As the run does by itself, where the demonstrations have no actions.
    config = without_actions(config)
    cdred.train(config)
    if finished_result(Path(config.out), config) is not None:
        script = f"python benchmarks/without_actions.py {options.name} --runs FOLDER --input {options.input}"
        episodes = f" --episodes {options.episodes.name}" if options.episodes else ""
        command = f"{script} --steps {options.steps}{episodes}"
        exported = replace(config, demos=demos.name)
        write_result_files(Path(config.out), exported, RESULTS / task / f"{label}.csv", command)


def drop_actions(task: str) -> cdred.DemoDataset:
    """Return 10 demonstrations without their actions."""
    dataset = get_demos(task, 10)
    episodes = [replace(episode, action=episode.action[:, :0]) for episode in dataset.trajectories]
    return replace(dataset, trajectories=tuple(episodes))


def public_episode(task: str, path: Path) -> cdred.DemoDataset:
    """Return the observations of the first public episode, at the action repeat of this suite."""
    obs = np.load(path)["obs"][0, ::ACTION_REPEAT]
    length = get_env_spec(task).episode_length
    episode = cdred.Trajectory(obs, np.zeros((length, 0), np.float32), None, terminated=False, truncated=True)
    return cdred.DemoDataset(task, (episode,), {"source": "github.com/arnavkj1995/SFM, first episode"})


if __name__ == "__main__":
    main()
