"""The studies, by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdred.studies.count_estimator import measure_counts
from cdred.studies.density_reward import measure_densities
from cdred.studies.signals import analyse_signals
from cdred.studies.study import Measurement, RunAnalysis, RunsPath, Scale, Study, TrainingStudy
from cdred.studies.two_tasks import TASKS_OF, file_name, task_name, write_demos
from cdred.sweep.sweep_file import DEFAULT, Options, SweepFile
from cdred.types import LogFn

BIN_PICKING, WALKER_WALK = "metaworld/bin-picking", "dmc/walker-walk"
# Demonstrations and steps per seed of a usual run.
BUDGETS: dict[Scale, tuple[int, int]] = {"cpu": (10, 5000), "paper": (100, 500_000)}
DEVELOPMENT_TASKS = ("metaworld/stick-pull", "metaworld/box-close", BIN_PICKING, "metaworld/reach", WALKER_WALK)
# Environment of fine-tuning, where agents of the plain task fail more often, and numbers of its demonstrations.
TARGET, TARGET_DEMOS = f"{BIN_PICKING}?mass=0.3", (15, 50)
# Evaluations of a run after that of the pretrained policy.
EVALUATIONS = 10
# In studies of rewards the agent acts at the end as it was trained: where the pretrained policy is chosen instead, as
# in most runs of bin-picking, all rewards have the same score.
NO_CHOICE: Options = {"selection_episodes": 0}


def sweep(
    scale: Scale,
    tasks: Sequence[str],
    *,
    methods: Sequence[str] = ("cdred",),
    settings: Mapping[str, Options] | None = None,
    demos: int | RunsPath | None = None,
    steps: int | None = None,
    **options: Any,
) -> SweepFile:
    """Return the runs of a study: the protocol that all have in common, and what varies.

    Args:
        scale: preset, demonstrations and steps.
        tasks: the tasks.
        methods: the methods.
        settings: options of each variant; the default one alone if None.
        demos: number of demonstrations, or their file; None for that of the scale.
        steps: steps per seed; None for those of the scale.
        options: further options of all runs.
    """
    budget = BUDGETS[scale]
    steps = budget[1] if steps is None else steps
    common = {
        "preset": scale,
        "demos": demos if isinstance(demos, RunsPath) else str(budget[0] if demos is None else demos),
        "steps": steps,
        "eval_every": steps // EVALUATIONS,
        "eval_episodes": 5 if scale == "cpu" else 10,
        "final_eval_episodes": 40,
        "video": False,
    }
    # Their episodes are five times as long, and vary less.
    of_task: dict[str, Options] = {t: {"final_eval_episodes": 10} if t.startswith("dmc/") else {} for t in tasks}
    of_method: dict[str, Options] = {method: {} for method in methods}
    return SweepFile("", of_task, of_method, (), dict(settings or {DEFAULT: {}}), common | options)


def values_of(option: str, values: Sequence[Any], default: Any) -> dict[str, Options]:
    """Return a setting per value of an option of CDRED; that of the preset is the default setting."""
    changed = {f"{option.replace('_', '-')}-{v}": {"cdred": {option: v}} for v in values if v != default}
    return {DEFAULT: {}} | changed


def bin_picking_100(scale: Scale) -> Sequence[SweepFile]:
    """Return the runs of the paper's first experiment."""
    steps = 20_000 if scale == "cpu" else None
    return [sweep(scale, [BIN_PICKING], methods=("cdred", "iqmpc", "bc"), demos=100, steps=steps)]


def coupling(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of several zetas."""
    zetas = values_of("zeta", (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0), 0.8)
    return [sweep(scale, [BIN_PICKING], settings=zetas, pretrain=NO_CHOICE)]


def data_efficiency(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of several numbers of demonstrations; of walker-walk the package has 30."""
    numbers_of = {
        "metaworld/box-close": (1, 3, 5, 10, 50, 100),
        WALKER_WALK: (1, 3, 5, 10, 30),
        "maniskill/PullCube": (1, 3, 5, 10, 50, 100),
    }
    return [
        sweep(scale, [task], methods=("cdred", "bc"), settings={f"demos-{n}": {"demos": str(n)} for n in numbers})
        for task, numbers in numbers_of.items()
    ]


def stability(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of five times the usual steps at a constant learning rate."""
    steps, constant = 5 * BUDGETS[scale][1], {"lr_decay_fraction": 0.0}
    methods = ("cdred", "iqmpc", "gail")
    return [sweep(scale, [WALKER_WALK], methods=methods, steps=steps, optim=constant, pretrain=NO_CHOICE)]


def target_count(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of several numbers of targets."""
    numbers = values_of("num_targets", (2, 5, 10, 20), 5)
    return [sweep(scale, [BIN_PICKING, WALKER_WALK], settings=numbers, pretrain=NO_CHOICE)]


def bonus_mix(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of several weights of the squared distance: 1 is without the count correction, 0 is it alone."""
    alphas = values_of("alpha", (0.0, 0.5, 0.9, 1.0), 0.9)
    return [sweep(scale, [BIN_PICKING, WALKER_WALK], settings=alphas, pretrain=NO_CHOICE)]


def count_term(scale: Scale) -> Sequence[SweepFile]:
    """Return runs with the mean of the count estimates, with their sum, and without them."""
    settings = values_of("count_reduction", ("mean", "sum"), "mean") | {"no-counts": {"cdred": {"alpha": 1.0}}}
    return [sweep(scale, [BIN_PICKING, WALKER_WALK], settings=settings, pretrain=NO_CHOICE)]


def g_function(scale: Scale) -> Sequence[SweepFile]:
    """Return runs of each transform of the bonuses, at several dimensions of z."""
    dims = (32, 128, 512) if scale == "cpu" else (128, 512, 1024)
    settings = {
        f"{transform}-{dim}": {"cdred": {"transform": transform}, "model": {"latent_dim": dim}}
        for dim in dims
        for transform in ("identity", "exp", "log")
    }
    return [sweep(scale, [BIN_PICKING, WALKER_WALK], settings=settings, pretrain=NO_CHOICE)]


def adaptive_zeta(scale: Scale) -> Sequence[SweepFile]:
    """Return runs with the constant weight and with both schedules, on all development tasks."""
    schedules = values_of("zeta_schedule", ("constant", "overlap", "ratio"), "constant")
    return [sweep(scale, DEVELOPMENT_TASKS, settings=schedules, pretrain=NO_CHOICE)]


def latent_or_observation(scale: Scale) -> Sequence[SweepFile]:
    """Return runs with rewards on several latents, and on observations."""
    # The paper's preset has no pretraining, which a frozen encoder needs.
    pretraining = {} if scale == "cpu" else {"updates": 10_000}
    settings: dict[str, Options] = {
        DEFAULT: {},
        "encoder-frozen": {"pretrain": {"encoder": "frozen"} | pretraining},
        "encoder-free": {"pretrain": {"encoder": "free"} | pretraining},
        "self-supervised": {"pretrain": {"encoder": "frozen", "encoder_loss": "consistency"} | pretraining},
        "reward-gradient": {"cdred": {"input_gradient": True}, "pretrain": {"encoder": "free"} | pretraining},
    }
    if scale == "cpu":
        settings["no-pretraining"] = {"pretrain": {"updates": 0}}
    tasks = [BIN_PICKING, WALKER_WALK]
    return [
        sweep(scale, tasks, settings=settings, pretrain=NO_CHOICE),
        sweep(scale, tasks, methods=("cdred-sac",), pretrain=NO_CHOICE),
    ]


def multi_expert(scale: Scale) -> Sequence[SweepFile]:
    """Return runs with experts of two qualities, and with two tasks in one agent and in one agent each."""
    methods, num = ("cdred", "bc"), BUDGETS[scale][0]

    def demos(name: str) -> RunsPath:
        return RunsPath(f"demos/{file_name(name, num)}")

    qualities: dict[str, Options] = {DEFAULT: {}} | {name: {"demos": demos(name)} for name in ("noisy", "mixed")}
    tasks = [sweep(scale, [task_name(name)], methods=methods, demos=demos(name)) for name in TASKS_OF]
    return [sweep(scale, [BIN_PICKING], methods=methods, settings=qualities), *tasks]


def multi_expert_demos(scale: Scale, folder: Path, log: LogFn) -> None:
    """Write the demonstrations of the study."""
    write_demos(folder / "demos", BIN_PICKING, BUDGETS[scale][0], log)


def finetune(scale: Scale) -> Sequence[SweepFile]:
    """Return runs in a source environment, and BC in a target environment, from scratch and from these runs."""
    tuned: dict[str, Options] = {
        f"{source}-demos-{number}": {"demos": str(number)} | start
        for number in TARGET_DEMOS
        for source, start in {
            "scratch": {},
            "from-bc": {"init_from": RunsPath(f"{BIN_PICKING}/bc/{{seeds}}")},
            "from-cdred": {"init_from": RunsPath(f"{BIN_PICKING}/cdred/{{seeds}}")},
        }.items()
    }
    # As many updates as at the scale of the CPU: there are few demonstrations.
    steps = BUDGETS["cpu"][1]
    return [
        sweep(scale, [BIN_PICKING], methods=("bc", "cdred")),
        sweep(scale, [TARGET], methods=("bc",), settings=tuned, steps=steps),
    ]


STUDIES: dict[str, Study] = {
    "bin-picking-100": TrainingStudy(
        "Is CDRED better than IQ-MPC and BC on bin-picking from 100 demonstrations?", bin_picking_100, "cdred"
    ),
    "coupling": TrainingStudy("Which weight zeta of the expert bonus is best on bin-picking?", coupling, "cdred"),
    "data-efficiency": TrainingStudy(
        "How do CDRED and BC depend on the number of demonstrations?", data_efficiency, "cdred-demos-10"
    ),
    "stability": TrainingStudy(
        "Do agents stay as good as they were, at a constant learning rate and five times the steps?",
        stability,
        "cdred",
        signal="reward_margin",
    ),
    "target-count": TrainingStudy("Does the number of random targets matter?", target_count, "cdred"),
    "bonus-mix": TrainingStudy("Does the count correction matter beside the squared distance?", bonus_mix, "cdred"),
    "count-term": TrainingStudy(
        "Does the count correction matter if it is a sum, as distances are?", count_term, "cdred"
    ),
    "g-function": TrainingStudy(
        "Which transform of the bonuses is best, as the dimension of z grows?", g_function, "cdred-identity-128"
    ),
    "g-function-density": Measurement(
        "Which transform's reward is closest to that of known densities, as their dimension grows?", measure_densities
    ),
    "adaptive-zeta": TrainingStudy("Is an adaptive weight zeta better than a constant one?", adaptive_zeta, "cdred"),
    "latent-or-observation": TrainingStudy(
        "Should the densities be estimated in a frozen, free, self-supervised or reward-shaped latent space, or on "
        "observations?",
        latent_or_observation,
        "cdred",
    ),
    "multi-expert": TrainingStudy(
        "Does one density of several experts help: of two qualities, and of two tasks?",
        multi_expert,
        "cdred",
        references={"bc-noisy": "bc", "bc-mixed": "bc"},
        prepare=multi_expert_demos,
    ),
    "finetune": TrainingStudy(
        "Does online training in a source environment make fine-tuning in a target environment better than BC does?",
        finetune,
        "bc-scratch-demos-15",
        references={f"bc-{source}-demos-50": "bc-scratch-demos-50" for source in ("from-bc", "from-cdred")},
    ),
    "count-estimator": Measurement("Does y(x) estimate the inverse of the number of visits?", measure_counts),
    "reward-free-signals": RunAnalysis(
        "Which quantity that needs no reward says how good an agent is?", analyse_signals
    ),
}
