"""Commands with a wrong argument, and phrases that their error messages must contain."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import damaged_demos as bad


class Case(NamedTuple):
    """A wrong command.

    Attributes:
        name: test id.
        command: the arguments of `cdred`.
        phrases: parts of the expected message.
        make: creates the files of the case in the working directory.
    """

    name: str
    command: str
    phrases: tuple[str, ...]
    make: Callable[[], object]


def nothing():
    """Create no files."""


def folder(name):
    return Path(name).mkdir


def case(name, command, *phrases, make=nothing):
    return Case(name, command, phrases, make)


TRAIN = "train probe/point --preset debug --out out"
INFO = "demos info"
# Reported by tyro.
USAGE_ERRORS = [
    case("no task", "train --preset debug --out out", "TASK", "required"),
    case("no task to compare", "compare --preset debug --out out", "TASK", "required"),
    case("preset without a value", "train probe/point --preset", "--preset"),
    case("word for an integer", f"{TRAIN} --steps ten", "--steps", "'ten'", "INT"),
    case("fraction for an integer", f"{TRAIN} --envs 1.5", "--envs", "'1.5'", "INT"),
    case("word for a float", f"{TRAIN} --optim.tau much", "--optim.tau", "'much'", "FLOAT"),
    case("word among seeds", f"{TRAIN} --seeds 0 x", "--seeds", "'x'", "INT"),
    case("no value", f"{TRAIN} --steps", "--steps"),
    case("value of a flag", f"{TRAIN} --video maybe", "maybe"),
    case("extra argument", f"{TRAIN} extra", "extra", "cdred train --help"),
    case("no argument", "eval", "RUN", "cdred eval --help"),
    case("format of an export", "export run", "--to"),
    case("required option", "demos collect probe/point", "--out PATH"),
    case("no subcommand", "demos", "collect, convert, info, check, render, list"),
    case("subcommand", "demos colect", "colect", "collect, convert, info, check, render, list"),
    case("benchmark", "bench updat", "'updat'", "'update'"),
]
# Reported by cdred.
ARGUMENT_ERRORS = [
    case("option", f"{TRAIN} --desicions 10", "unknown option --desicions.", "cdred train --help-all"),
    case("nested option", f"{TRAIN} --mppi.horizn 1", "--mppi.horizn. Did you mean --mppi.horizon?"),
    case("group", f"{TRAIN} --mpi.horizon 1", "--mpi.horizon. Did you mean --mppi.horizon?"),
    case("option=value", f"{TRAIN} --algoo=bc", "--algoo=bc. Did you mean --algo?"),
    case("short option", f"{TRAIN} -x", "unknown option -x.", "cdred train --help-all"),
    case("underscore", f"{TRAIN} --buffer_siz 9", "--buffer_siz. Did you mean --buffer-size?"),
    case("learning rate", f"{TRAIN} --lr 1e-3", "Did you mean --optim.learning-rate?"),
    case("option before the task", "train --lr 1e-3 probe/point", "Did you mean --optim.learning-rate?"),
    case("device", f"{TRAIN} --device cpu", "no setting for the device", "JAX_PLATFORMS"),
    case("task as an option", "train --env probe/point", "Did you mean TASK?"),
    case("choice", f"{TRAIN} --algo cdrde", "--algo should be 'cdred', ", "got 'cdrde'. Did you mean cdred?"),
    case("choice=value", f"{TRAIN} --algo=sqil", "got 'sqil'. Did you mean iqlearn-sac?"),
    case("preset", "train probe/point --preset cup", "--preset should be", "got 'cup'. Did you mean cpu?"),
    case("preset of compare", "compare probe/point --preset cup --out x", "--preset should be", "'cup'"),
    case("preset of train-expert", "train-expert probe/point --preset cup --out x", "--preset should be", "'cup'"),
    case("vectorization", f"{TRAIN} --vectorization procs", "got 'procs'. Did you mean process?"),
    case("planner", f"{TRAIN} --planner cem", "got 'cem'. Did you mean mppi?"),
    case("planner of eval", "eval run --planner mpi", "--planner should be", "got 'mpi'. Did you mean mppi?"),
    case("nested choice", f"{TRAIN} --precision.model bf16", "--precision.model", "Did you mean bfloat16?"),
    case("tracker", f"{TRAIN} --track wnadb", "--track should be 'tensorboard', ", "got 'wnadb'. Did you mean wandb?"),
    case(
        "second tracker", f"{TRAIN} --trackers wandb tb", "--trackers should be", "got 'tb'. Did you mean tensorboard?"
    ),
    case("tracker of compare", "compare probe/point --out x --track tb", "got 'tb'. Did you mean tensorboard?"),
    case("tracker of train-expert", "train-expert probe/point --out x --track tb", "Did you mean tensorboard?"),
    case("tracker as an option", f"{TRAIN} --wandb", "unknown option --wandb. Did you mean --trackers?"),
    case("option of a subcommand", "demos collect probe/point --nmu 3 --out x", "Did you mean --num?"),
    case("format", "demos convert a b --format lerobt", "got 'lerobt'. Did you mean lerobot?"),
    case("format to export to", "export run --to onxx", "--to should be", "got 'onxx'. Did you mean onnx?"),
    case("option of export", "export run --to npz --sed 3", "--sed. Did you mean --seed?"),
    case("name of an export", "export run --to npz --out x.onnx", "expected one that ends in .npz"),
    case("export exists", "export run --to npz --out d.npz", "d.npz exists already", make=bad.npz()),
    case("export into a folder", "export run --to npz --out d.npz", "d.npz is a folder", make=folder("d.npz")),
    case("option of push", "push run x --licence mit", "--licence. Did you mean --license?"),
    case("push of no run", "push run x", "run is not a run with a checkpoint"),
    case("pull of nothing", "pull gone run", "gone has no manifest.json", "`cdred push`"),
    case("address to push to", "push run hf://me", "run is not a run"),
    case("address to pull from", "pull hf://me run", "hf://me is not the address", "hf://OWNER/NAME"),
    case("revision of a folder", "pull x run --revision v1", "--revision is for a repository", "omit it"),
    case("address of demonstrations", f"{TRAIN} --demos hf://me", "hf://me is not the address"),
    case("Minari dataset without version", f"{TRAIN} --demos minari://a/b", "minari://ID with its version"),
    case("option of eval", "eval run --episode 3", "--episode. Did you mean --episodes?"),
    case("option of bench", "bench update --repeat 3", "--repeat. Did you mean --repeats?"),
    case("option of report", "report run --tabel x", "--tabel. Did you mean --table?"),
    case("option of train-expert", "train-expert probe/point --treshold 3", "Did you mean --threshold?"),
    case("output of train-expert", "train-expert probe/point --output x", "--output. Did you mean --out?"),
    case("method to compare", "compare probe/point --out x --algos cdred bcc", "got 'bcc'. Did you mean bc?"),
    case("single method to compare", "compare probe/point --out x --algo bc", "--algo. Did you mean --algos?"),
    case("verb", "trian", "unknown verb 'trian'", "Did you mean train?"),
    case("comparison without a folder", "compare probe/point", "--out"),
    case("report of nothing", "report", "cdred report RUN"),
    case(
        "suite",
        "train metawrld/reach --out out",
        "no suite 'metawrld'",
        "Did you mean metaworld?",
        "There are: metaworld,",
    ),
    case("task", "train probe/pont --out out", "no task 'probe/pont'", "Did you mean probe/point?"),
    case("task without a suite", "train point --out out", "'point' is not a task", "SUITE/NAME"),
    case("repeated tracker", f"{TRAIN} --track wandb wandb", "--trackers must be different names"),
    case("repeated seed", f"{TRAIN} --seeds 1 1", "--seeds must be"),
    case("negative seed", f"{TRAIN} --seeds -1", "--seeds"),
    case("seed too large", f"{TRAIN} --seeds 4294967296", "--seeds should be less than or equal to"),
    case("number too large", f"{TRAIN} --steps 99999999999999999999", "--steps should be less than or equal to"),
    case("interval of zero", f"{TRAIN} --log-every 0", "--log-every should be greater than or equal to 1"),
    case(
        "width of zero", f"{TRAIN} --model.hidden-dims 16 0", "--model.hidden-dims should be greater than or equal to 1"
    ),
    case("latent of zero", f"{TRAIN} --model.latent-dim 0", "--model.latent-dim should be"),
    case("nan", f"{TRAIN} --optim.learning-rate nan", "--optim.learning-rate should be finite"),
    case("infinite", f"{TRAIN} --optim.reward-coef inf", "--optim.reward-coef should be finite"),
    case("negative", f"{TRAIN} --optim.grad-clip-norm -1", "--optim.grad-clip-norm should be greater than 0"),
    case("more elites than samples", f"{TRAIN} --mppi.num-elites 999", "--mppi.num-elites must be"),
    case("environments that do not divide updates", f"{TRAIN} --envs 7", "--envs must divide"),
    case("no demonstrations", f"{TRAIN} --demos 0", "at least one demonstration is needed"),
    case("collecting none", "demos collect probe/point --num 0 --out x", "at least one demonstration"),
    case("collecting with a negative seed", "demos collect probe/point --seed -1 --out x", "--seed must be"),
    case("no repeats", "bench update --preset debug --repeats 0", "--repeats must be at least 1"),
    case(
        "recording none",
        "train-expert probe/point --preset debug --num 0 --out x",
        "at least one demonstration is needed",
    ),
    case("a file for a folder", f"{TRAIN} --demos d.npz --out d.npz", "d.npz", "--out", make=bad.npz()),
    case(
        "below a file",
        "demos collect probe/point --out f/x",
        "f/x",
        "f is not a writable folder",
        make=bad.write_text("f", "mine"),
    ),
    case("output exists", "demos collect probe/point --out d", "d exists already", make=bad.minari),
    case("plot exists", f"{INFO} d.npz --plot d.npz", "d.npz exists already", make=bad.npz()),
    case("a folder for a file", "demos collect probe/point --out d.npz", "d.npz is a folder", make=folder("d.npz")),
    case(
        "output of train-expert exists",
        "train-expert probe/point --out f",
        "f exists already",
        make=bad.write_text("f", "mine"),
    ),
    case("table into a folder", "report run --table run", "run is a folder", make=bad.write_text("run/x", "")),
    case("figures into a folder", "eval run --json run", "run is a folder", make=bad.write_text("run/x", "")),
    case("scaling plot", "bench update --plot x.png", "--plot is for `cdred bench scaling`"),
]
