"""Wrong words: what is run, and what its message must say."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import damaged_demos as bad


class Case(NamedTuple):
    """What is run in a folder of its own, after `make` has made what is in it; `says` is in its message."""

    name: str
    words: str
    says: tuple[str, ...]
    make: Callable[[], object]


def nothing():
    """Leaves the folder as it is."""


def folder(name):
    return Path(name).mkdir


def case(name, words, *says, make=nothing):
    return Case(name, words, says, make)


TRAIN = "train probe/point --preset debug --out out"
INFO = "demos info"
WORDS = [
    case("verb", "trian", "no verb 'trian'", "Did you mean train?"),
    case("option", f"{TRAIN} --desicions 10", "no option --desicions", "Did you mean --steps?"),
    case("nested option", f"{TRAIN} --reward.zta 1", "no option --reward.zta", "Did you mean --reward.zeta?"),
    case("group", f"{TRAIN} --rewrad.zeta 1", "no option --rewrad.zeta", "Did you mean --reward.zeta?"),
    case("option=value", f"{TRAIN} --algoo=bc", "no option --algoo", "Did you mean --algo?"),
    case("short option", f"{TRAIN} -x", "no option -x", "cdred train --help"),
    case("underscore", f"{TRAIN} --replay_capcity 9", "Did you mean --buffer-size?"),
    case("choice", f"{TRAIN} --algo cdrde", "--algo cdrde", "expected one of cdred,", "Did you mean cdred?"),
    case("preset", "train probe/point --preset cup", "--preset cup", "cpu, paper, debug"),
    case("workers", f"{TRAIN} --vectorization procs", "--vectorization procs", "Did you mean process?"),
    case("planner", "eval run --planner mpi", "--planner mpi", "Did you mean mppi?"),
    case("nested choice", f"{TRAIN} --precision.model bf16", "--precision.model bf16", "Did you mean bfloat16?"),
    case("word for a number", f"{TRAIN} --steps ten", "--steps", "'ten' is not a whole number"),
    case("fraction for a whole number", f"{TRAIN} --envs 1.5", "--envs", "'1.5' is not a whole number"),
    case("word for a fraction", f"{TRAIN} --reward.zeta much", "--reward.zeta", "'much' is not a number"),
    case("word among seeds", f"{TRAIN} --seeds 0 x", "--seeds", "INT"),
    case("no value", f"{TRAIN} --steps", "--steps needs a value"),
    case("not yes or no", f"{TRAIN} --video maybe", "--video maybe", "True, False"),
    case("word too many", f"{TRAIN} extra", "nothing takes the word 'extra'"),
    case("no word", "eval", "missing: PATH", "cdred eval --help"),
    case("required option", "demos collect probe/point", "missing: --out PATH"),
    case("no sub-verb", "demos", "collect, convert, info, list"),
    case("sub-verb", "demos colect", "Did you mean collect?"),
    case("option of a sub-verb", "demos collect probe/point --nmu 3 --out x", "Did you mean --num?"),
    case("what to bench", "bench updat", "updat", "Did you mean update?"),
    case("option of eval", "eval run --episode 3", "Did you mean --episodes?"),
    case("option of expert", "expert probe/point --out x --treshold 3", "Did you mean --threshold?"),
    case("method to compare", "compare probe/point --out x --algos cdred bcc", "--algos bcc", "Did you mean bc?"),
    case("comparison in no folder", "compare probe/point", "give --out"),
    case("report of nothing", "report", "cdred report RUN"),
    case("suite", "train prob/point --out out", "no suite 'prob'", "Did you mean probe"),
    case("task", "train probe/pont --out out", "no task 'probe/pont'", "Did you mean probe/point?"),
    case("task without a suite", "train point --out out", "'point' is not a task", "SUITE/NAME"),
    case("no seed twice", f"{TRAIN} --seeds 1 1", "--seeds must be"),
    case("seed below 0", f"{TRAIN} --seeds -1", "--seeds"),
    case("seed too large", f"{TRAIN} --seeds 4294967296", "--seeds must be from 0 to"),
    case("number too large", f"{TRAIN} --steps 99999999999999999999", "--steps must be from 1 to"),
    case("no interval", f"{TRAIN} --log-every 0", "--log-every must be from 1 to"),
    case("no width", f"{TRAIN} --model.hidden-dims 16 0", "--model.hidden-dims must be from 1 to"),
    case("no latent", f"{TRAIN} --model.latent-dim 0", "--model.latent-dim must be"),
    case("not a number", f"{TRAIN} --optim.learning-rate nan", "--optim.learning-rate must be a finite number"),
    case("infinite", f"{TRAIN} --reward.zeta inf", "--reward.zeta must be a finite number"),
    case("below 0", f"{TRAIN} --optim.grad-clip-norm -1", "--optim.grad-clip-norm must be a finite number >= 0"),
    case("at odds", f"{TRAIN} --mppi.num-elites 999", "--mppi.num-elites must be"),
    case("environments at odds", f"{TRAIN} --envs 7", "--envs must divide"),
    case("no demonstrations", f"{TRAIN} --demos 0", "at least one demonstration is needed"),
    case("collecting none", "demos collect probe/point --num 0 --out x", "at least one demonstration"),
    case("collecting with no seed", "demos collect probe/point --seed -1 --out x", "--seed must be"),
    case("nothing measured", "bench update --preset debug --repeats 0", "--repeats must be at least 1"),
    case("recording none", "expert probe/point --preset debug --num 0 --out x", "at least one demonstration is needed"),
    case("a file for a folder", f"{TRAIN} --demos d.npz --out d.npz", "d.npz", "--out", make=bad.npz()),
    case("below a file", "demos collect probe/point --out f/x", "f/x", "not a folder", make=bad.text("f", "mine")),
    case("taken", "demos collect probe/point --out d", "d exists already", make=bad.minari),
    case("picture taken", f"{INFO} d.npz --plot d.npz", "d.npz exists already", make=bad.npz()),
    case("a folder for a file", "demos collect probe/point --out d.npz", "d.npz is a folder", make=folder("d.npz")),
    case("expert's place taken", "expert probe/point --out f", "f exists already", make=bad.text("f", "mine")),
    case("table into a folder", "report run --table run", "run is a folder", make=bad.text("run/x", "")),
    case("figures into a folder", "eval run --json run", "run is a folder", make=bad.text("run/x", "")),
    case("growth's picture", "bench update --plot x.png", "--plot draws `growth` alone"),
]
