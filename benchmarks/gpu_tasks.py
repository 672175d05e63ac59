"""Stages `b`, `c` and `d` of `benchmarks/gpu.sh`: whole tasks within a time limit.

    python benchmarks/gpu_tasks.py b --out OUT --limit-s 530   # simulator on the device (mjx)
    python benchmarks/gpu_tasks.py c --out OUT --limit-s 530   # simulators on the host's cores (Meta-World)
    python benchmarks/gpu_tasks.py d --out OUT --limit-s 530   # camera images, rendered on the host (DMControl)

Stages b and d train TD-MPC2 on the task's reward, record demonstrations with it, and train CDRED from these in vmapped
seeds, five or three; `--demos` replaces the first two in b. Stage c trains CDRED and BC from scripted demonstrations.
Each training run has a share of the time; it ends at its limit like a run that is stopped by a signal, with its curves,
and its agents are evaluated. `OUT/<stage>.json` has the curves while they grow, `OUT/<task>.npz` the recorded
demonstrations, unless they are too large.
"""

import argparse
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from gpu_stage import Publish, Stage

import cdred
from cdred.bench.benchmarks import loop_rates
from cdred.compilation_cache import use_compilation_cache
from cdred.config import PrecisionConfig, RunConfig, preset
from cdred.data.demonstrations import save_demos
from cdred.demos.scripted import collect_scripted
from cdred.experts import RECORDING_ENVS, record_episodes
from cdred.provenance import provenance
from cdred.run_folder import load_run

HOST_TASKS = ("metaworld/bin-picking", "metaworld/box-close")
DEVICE_TASK = "mjx/WalkerRun"
PIXEL_TASKS = ("dmc/walker-run?obs=pixels", "dmc/cheetah-run?obs=pixels")
SEEDS, PIXEL_SEEDS, PIXEL_ENVS = (0, 1, 2, 3, 4), (0, 1, 2), 4
# Demonstrations are stored in OUT below this size.
MAX_DEMO_BYTES = 5_000_000
# Seconds between two looks at a running training, and seconds kept for evaluating and ending.
POLL_S, RESERVE_S = 5.0, 40.0
# Sizes that try every line in a minute. The rehearsal's simulator compiles fast.
REHEARSAL: dict[str, Any] = {"preset": "debug", "num_demos": 3, "seeds": (0, 1), "eval_episodes": 2}
REHEARSAL_PIXEL_TASK = "dmc/cartpole-swingup?repeat=8&obs=pixels&size=32"
# Stages begin with an episode per environment: of 500 steps in ten (b), of 100 in three (c), of 125 in four (d).
REHEARSAL_STEPS = {"b": 5600, "c": 390, "d": 600}


def main() -> None:
    """Run a stage."""
    options = parse()
    stage = Stage(options.stage, options.out / f"{options.stage}.json", options.limit_s, {"preset": options.preset})
    use_compilation_cache()
    stage.about(provenance())
    with tempfile.TemporaryDirectory() as folder:
        {"b": device_stage, "c": host_stage, "d": pixel_stage}[options.stage](stage, options, Path(folder))
    stage.end()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("b", "c", "d"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit-s", type=float, required=True, help="seconds until the program ends")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--task", default=DEVICE_TASK, help="task of stage b")
    parser.add_argument("--demos", type=Path, help="demonstrations of stage b; recorded if absent")
    parser.add_argument("--num-demos", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps per seed, if the time allows")
    parser.add_argument("--seeds", type=int, nargs="+", help="of CDRED and BC; five in stages b and c, three in d")
    parser.add_argument("--eval-episodes", type=int, default=20)
    parser.add_argument("--rehearse", action="store_true", help="sizes of a minute in place of all of the above")
    options = parser.parse_args()
    options.seeds = options.seeds or (PIXEL_SEEDS if options.stage == "d" else SEEDS)
    if options.rehearse:
        vars(options).update(REHEARSAL, task="mjx/CartpoleSwingup", steps=REHEARSAL_STEPS[options.stage])
    return options


def device_stage(stage: Stage, options: argparse.Namespace, folder: Path) -> None:
    """Train an expert on the device, record it, train CDRED from it, and measure the speed of one seed."""
    demos = options.demos
    if demos is None:
        # As many environments as are recorded together, so that both run the same compiled program.
        changes = {"envs": RECORDING_ENVS}
        demos = expert_demos(stage, "", options.task, folder, 0.4 * stage.seconds_left(), options, changes)
    if not demos.exists():
        stage.skip("cdred", "there are no demonstrations")
        return
    config = run_config(options, options.task, folder / "cdred", demos=str(demos), envs=2)
    train(stage, "cdred", config, 0.7 * stage.seconds_left(), options)
    for precision in ("tf32", "float32"):
        one = replace(preset("debug" if options.rehearse else "paper"), task=options.task, seeds=(0,), demos=str(demos))
        one = replace(one, random_episodes=1, precision=PrecisionConfig(precision, precision))
        name = f"loop of one seed, {precision}"
        stage.measure(name, lambda _, config=one: loop_rates(config, cdred.load_demos(demos), 10), 2 * RESERVE_S)


def pixel_stage(stage: Stage, options: argparse.Namespace, folder: Path) -> None:
    """Train experts from camera images, record them, and train CDRED from these, one task after the other."""
    tasks = (REHEARSAL_PIXEL_TASK,) if options.rehearse else PIXEL_TASKS
    changes = {"envs": PIXEL_ENVS, "vectorization": "process"}
    for index, task in enumerate(tasks):
        share = stage.seconds_left() / (len(tasks) - index)
        end = stage.seconds() + share
        demos = expert_demos(stage, f", {task}", task, folder / str(index), 0.5 * share, options, changes)
        if not demos.exists():
            stage.skip(f"cdred, {task}", "there are no demonstrations")
            continue
        config = run_config(options, task, folder / str(index) / "cdred", demos=str(demos), **changes)
        train(stage, f"cdred, {task}", config, end - stage.seconds(), options)


def expert_demos(
    stage: Stage,
    label: str,
    task: str,
    folder: Path,
    seconds: float,
    options: argparse.Namespace,
    changes: dict[str, Any],
) -> Path:
    """Train TD-MPC2 for at most `seconds` and record it.

    Args:
        stage: measures both.
        label: end of the names of the two measurements.
        task: the task.
        folder: for the run and its demonstrations.
        seconds: limit of the training, its evaluation included.
        options: of the command line.
        changes: of the run's settings.

    Returns:
        The file of demonstrations, which does not exist if the training or the recording failed.
    """
    expert = run_config(options, task, folder / "expert", algo="tdmpc2", seeds=(0,), **changes)
    train(stage, f"expert{label}", expert, seconds, options)
    demos = folder / "demos.npz"
    stage.measure(f"demonstrations{label}", partial(record, expert, demos, options), RESERVE_S / 2)
    return demos


def host_stage(stage: Stage, options: argparse.Namespace, folder: Path) -> None:
    """Train CDRED and BC on tasks whose simulators run in processes of their own."""
    tasks, demos = [], {}
    for task in HOST_TASKS[:1] if options.rehearse else HOST_TASKS:
        demos[task] = folder / f"{task.replace('/', '-')}.npz"
        collected = stage.measure(f"demonstrations, {task}", partial(collect, task, options.num_demos, demos[task]))
        if collected:
            tasks.append(task)
    runs = [(task, algo) for algo in ("cdred", "bc") for task in tasks]
    for index, (task, algo) in enumerate(runs):
        # BC, which steps no environment, takes a sixth of CDRED's share.
        weights = [6 if algo == "cdred" else 1 for _, algo in runs[index:]]
        seconds = stage.seconds_left() * weights[0] / sum(weights)
        out = folder / f"{algo}-{task.replace('/', '-')}"
        config = run_config(options, task, out, algo=algo, demos=str(demos[task]), vectorization="process", envs=3)
        train(stage, f"{algo}, {task}", replace(config, updates_per_call=30), seconds, options)


def run_config(options: argparse.Namespace, task: str, out: Path, **changes: Any) -> RunConfig:
    """Return the settings of a training run; an evaluation every tenth of the steps, in a rehearsal every half."""
    every = options.steps // (2 if options.rehearse else 10)
    settings: dict[str, Any] = {"steps": options.steps, "seeds": tuple(options.seeds), "video": False}
    settings |= {"eval_every": every, "checkpoint_every": 2 * every, "log_every": every // 5}
    settings |= {"eval_episodes": max(1, options.eval_episodes // 4), "final_eval_episodes": options.eval_episodes}
    settings |= {"random_episodes": 1, "updates_per_call": 40, "task": task, "out": str(out)}
    return replace(preset(options.preset), **settings | changes)


def train(stage: Stage, name: str, config: RunConfig, seconds: float, options: argparse.Namespace) -> None:
    """Measure a training run of at most `seconds`, its final evaluation included."""

    def run(publish: Publish) -> dict[str, Any]:
        with limited(Path(config.out), stage.seconds() + seconds - RESERVE_S / 2, stage, publish):
            try:
                cdred.train(config)
            except cdred.Interrupted:
                final = cdred.evaluate(config.out, episodes=options.eval_episodes)
                return run_document(config, curves(Path(config.out))) | {"finished": False, "final": final}
        result = json.loads((Path(config.out) / "result.json").read_text())
        return run_document(config, curves(Path(config.out))) | {"finished": True, "final": result["eval"]}

    stage.measure(name, run, RESERVE_S)


def run_document(config: RunConfig, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return settings and curves of a run."""
    return {"config": {key: value for key, value in asdict(config).items() if key != "out"}, "curves": lines}


@contextmanager
def limited(out: Path, limit: float, stage: Stage, publish: Publish) -> Iterator[None]:
    """Publish the curves of the run that the body trains while they grow, and stop it by SIGTERM at the limit.

    One signal, and only after training has installed its handler, for which a second one means to stop without saving.
    One that comes after training has ended is ignored.
    """
    # A handler, because worker processes would inherit that the signal is ignored.
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    ended, config = threading.Event(), {"out": str(out)}

    def watch() -> None:
        stopped = False
        while not ended.wait(POLL_S):
            lines = curves(out)
            publish(config | {"curves": lines})
            if lines and not stopped and stage.seconds() > limit:
                stopped = True
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, previous)


def curves(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics but those of single episodes; the last may be incomplete."""
    path, lines = out / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return [line for line in lines if line.get("kind") != "rollout"]


def record(expert: RunConfig, path: Path, options: argparse.Namespace, _: Publish) -> dict[str, Any]:
    """Record the expert's episodes, keep them in OUT too unless they are too large, and return their provenance."""
    loaded = load_run(Path(expert.out), None)
    about = {"expert": f"tdmpc2 on the true reward, {loaded.steps} steps", "preset": expert.preset} | provenance()
    demos = record_episodes(loaded, 0, options.num_demos, provenance=about)
    save_demos(demos, path)
    if path.stat().st_size <= MAX_DEMO_BYTES:
        shutil.copyfile(path, options.out / f"{expert.task.partition('?')[0].replace('/', '-')}.npz")
    return dict(demos.provenance)


def collect(task: str, num: int, path: Path, _: Publish) -> dict[str, Any]:
    """Record scripted demonstrations and return their provenance."""
    demos = collect_scripted(task, num)
    save_demos(demos, path)
    return dict(demos.provenance)


if __name__ == "__main__":
    main()
