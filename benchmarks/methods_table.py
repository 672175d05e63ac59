"""Runs of the table of methods, BC among them, one after another, and their export to results/.

    python benchmarks/methods_table.py --runs FOLDER [--tasks ...] [--methods ...] [--part 1/2]

Finished runs are skipped and interrupted ones resumed, so the same command continues where it stopped. A finished run
is exported to `results/<suite>/<task>/<method>-pretrain.csv` and `.json`; its rows at step 0 are those of the
pretrained policy, BC. Other numbers of demonstrations and steps than 10 and 5,000 (`--demos 1`, `--steps 20000`) and
other seeds than 0 1 2 are in file names, as in `cdred-pretrain-1demos-20000steps-seeds-3-4`. `methods_report.py` makes
the tables of all exported runs. On two cores, one process each with `--part 1/2` and `--part 2/2`, pinned to a core
(`taskset -c 0 ...`), is fastest.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cdred
from cdred.config import RunConfig
from cdred.report.result_files import write_result_files
from cdred.report.results import RunResults, read_run
from cdred.run_folder import finished_result

RESULTS = Path(__file__).resolve().parents[1] / "results"
DEVELOPMENT = (
    "metaworld/stick-pull",
    "metaworld/box-close",
    "metaworld/bin-picking",
    "metaworld/reach",
    "dmc/walker-walk",
)
CONFIRMATION = (
    "metaworld/reach-wall",
    "metaworld/stick-push",
    "metaworld/peg-insert-side",
    "dmc/reacher-easy",
    "maniskill/PullCube",
)
METHODS = {"cdred": "CDRED", "iqmpc": "IQ-MPC", "iqlearn-sac": "IQ-Learn + SAC", "gail": "GAIL", "red": "RED"}
FIRST_SEEDS = (0, 1, 2)
DEMOS, STEPS = 10, 5000
# Steps over which exploring episodes are averaged.
BIN = 1000


class Budget(NamedTuple):
    """Demonstrations and environment steps of a run."""

    demos: int
    steps: int

    @property
    def suffix(self) -> str:
        """Part of file names, empty for 10 demonstrations and 5,000 steps."""
        demos = "" if self.demos == DEMOS else f"-{self.demos}demos"
        return demos + ("" if self.steps == STEPS else f"-{self.steps}steps")


def main() -> None:
    """Run and export what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--tasks", nargs="+", default=(*DEVELOPMENT, *CONFIRMATION))
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=FIRST_SEEDS, help="0 1 2 first, others after them")
    parser.add_argument("--demos", type=int, default=DEMOS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--part", default="1/1", help="i/n: every n-th run, beginning with the i-th")
    options = parser.parse_args()
    budget = Budget(options.demos, options.steps)
    first, every = map(int, options.part.split("/"))
    pairs = [(task, method) for task in options.tasks for method in options.methods]
    for task, method in pairs[first - 1 :: every]:
        config = run_config(task, method, budget, tuple(options.seeds), options.runs)
        if finished_result(Path(config.out), config) is None:
            print(f"{task} {method}", flush=True)
            cdred.train(config)
        export(Path(config.out), config, exported(task, method, budget, config.seeds))


def run_config(task: str, method: Any, budget: Budget, seeds: tuple[int, ...], runs: Path) -> RunConfig:
    """Return the settings of a run: the `cpu` preset with another budget."""
    episodes = 10 if task.startswith("dmc/") else 40
    return RunConfig(
        **vars(cdred.preset("cpu"))
        | {
            "task": task,
            "algo": method,
            "demos": str(budget.demos),
            "steps": budget.steps,
            "seeds": seeds,
            "final_eval_episodes": episodes,
            "video": False,
            "out": str(runs / task.replace("/", "-") / f"{method}{budget.suffix}{_suffix(seeds)}"),
        }
    )


def export(folder: Path, config: RunConfig, path: Path) -> None:
    """Write the evaluations, settings and result of a finished run to `path`, a CSV file, and JSON beside it."""
    seeds = " ".join(map(str, config.seeds))
    budget = Budget(int(config.demos), config.steps)
    command = (
        f"cdred train {config.task} --algo {config.algo}"
        + (f" --demos {budget.demos}" if budget.demos != DEMOS else "")
        + (f" --steps {budget.steps}" if budget.steps != STEPS else "")
        + f" --seeds {seeds} --final-eval-episodes {config.final_eval_episodes} --no-video"
    )
    run = read_run(folder)
    extra = {"selection": selection(run), f"exploring_success_per_{BIN}_steps": exploring_success(run)}
    write_result_files(folder, config, path, command, **extra)


def selection(run: RunResults) -> dict[str, Any] | None:
    """Return the detected successes of each candidate and the choice; None if none could be detected."""
    lines = [line for line in run.lines if line["kind"] == "selection"]
    return {name: value for name, value in lines[-1].items() if isinstance(value, list)} if lines else None


def exploring_success(run: RunResults) -> list[float | None]:
    """Return the success rate of the training episodes that ended in each `BIN` steps; None where it is unknown."""
    rates: dict[int, list[float]] = {}
    for line in run.lines:
        if line["kind"] == "rollout":
            known = [rate for rate in line.get("success") or () if rate is not None]
            rates.setdefault((line["step"] - 1) // BIN, []).extend(known)
    return [round(float(np.mean(rates[i])), 3) if rates.get(i) else None for i in range(max(rates, default=-1) + 1)]


def exported(task: str, method: str, budget: Budget, seeds: tuple[int, ...] = FIRST_SEEDS) -> Path:
    """Return the CSV file of a run in results/."""
    return RESULTS / f"{task}/{method}-pretrain{budget.suffix}{_suffix(seeds)}.csv"


def _suffix(seeds: tuple[int, ...]) -> str:
    return "" if seeds == FIRST_SEEDS else f"-seeds-{'-'.join(map(str, seeds))}"


if __name__ == "__main__":
    main()
