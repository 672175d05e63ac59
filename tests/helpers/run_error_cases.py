"""Runs with one thing wrong each, and what the message about it must say."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import damaged_demos as bad
from cli_error_cases import case, nothing

STEP = "run/checkpoints/000000040"
INDEX, ARRAYS, CONFIG = f"{STEP}/checkpoint.json", f"{STEP}/state.safetensors", "run/config.yaml"


def replaced(old, new):
    """A setting in the run's config.yaml."""

    def make():
        before = Path(CONFIG).read_text()
        assert old in before
        Path(CONFIG).write_text(before.replace(old, new))

    return make


def signed(data):
    """The index's checksums made to fit: they tell damage, not intent."""
    index = json.loads(Path(INDEX).read_text())
    index.pop("crc32")
    index["files"][Path(ARRAYS).name] |= {"bytes": len(data), "crc32": zlib.crc32(data)}
    Path(INDEX).write_text(json.dumps(index | {"crc32": zlib.crc32(json.dumps(index).encode())}))


def resaved(change):
    def make():
        stored = load_file(ARRAYS)
        change(stored)
        save_file(stored, ARRAYS)
        signed(Path(ARRAYS).read_bytes())

    return make


def first_wider(stored):
    name = next(name for name in stored if name.startswith("learner/") and stored[name].ndim == 2)
    stored[name] = np.zeros((3, 3), np.float32)


def damaged(data):
    return lambda: Path(ARRAYS).write_bytes(data)


RESUME = "train probe/point --preset debug --algo bc --demos demos.npz --steps 40 --video False --out run"
EVAL = "eval run"


def spoiled_run(name, make, *says, words=EVAL):
    return case(name, words, *says, make=make)


RUNS = [
    spoiled_run("no run", nothing, "gone is not a run", "config.yaml and checkpoints/", words="eval gone"),
    spoiled_run("no checkpoint", lambda: shutil.rmtree("run/checkpoints"), "is not a run with a checkpoint"),
    spoiled_run("no settings", lambda: Path(CONFIG).unlink(), "expected config.yaml"),
    spoiled_run(
        "no settings to resume", lambda: Path(CONFIG).unlink(), "without its settings, config.yaml", words=RESUME
    ),
    spoiled_run("no episodes", nothing, "--episodes must be at least 1", words=f"{EVAL} --episodes 0"),
    spoiled_run("settings not YAML", bad.text(CONFIG, "a: ["), CONFIG, "is not YAML"),
    spoiled_run("settings not text", bad.text(CONFIG, b"\xff\xfe\x00"), CONFIG, "it is not text"),
    spoiled_run("settings without end", bad.text(CONFIG, "a: 1\n" * 2**18), CONFIG, "which no settings have"),
    spoiled_run("settings a list", bad.text(CONFIG, "- 1"), CONFIG, "expected a mapping"),
    spoiled_run(
        "settings with a tag",
        bad.text(CONFIG, "task: !!python/object/apply:os.system ['touch pwned']"),
        CONFIG,
        "tag",
        "python/object",
    ),
    spoiled_run(
        "settings of aliases", bad.text(CONFIG, "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"), CONFIG, "aliases"
    ),
    spoiled_run(
        "misspelt setting",
        replaced("\ndecisions:", "\ndesicions:"),
        CONFIG,
        "unknown setting desicions",
        "Did you mean steps?",
    ),
    spoiled_run(
        "misspelt nested setting",
        replaced("  horizon:", "  horizn:"),
        CONFIG,
        "mppi.horizn",
        "Did you mean mppi.horizon?",
    ),
    spoiled_run(
        "setting of the wrong type",
        replaced("\ndecisions: 40", "\ndecisions: many"),
        CONFIG,
        "steps must be int, got 'many'",
    ),
    spoiled_run("setting that is no choice", replaced("algo: bc", "algo: bcc"), CONFIG, "algo must be one of"),
    spoiled_run(
        "setting out of range", replaced("latent_dim: 16", "latent_dim: -16"), CONFIG, "--model.latent-dim must be"
    ),
    spoiled_run("seeds gone", replaced("seeds:\n- 0", "seeds: []"), CONFIG, "--seeds must be"),
    spoiled_run("other task", replaced("task: probe/point", "task: probe/dying"), "does not fit", "config.yaml"),
    spoiled_run("no such task", replaced("task: probe/point", "task: probe/nowhere"), "no task 'probe/nowhere'"),
    spoiled_run(
        "other hidden_dims",
        replaced("latent_dim: 16", "latent_dim: 24"),
        "does not fit: expected float32 of shape",
        "config.yaml",
    ),
    spoiled_run("other method", replaced("algo: bc", "algo: tdmpc2"), "does not fit"),
    spoiled_run(
        "resumed otherwise",
        nothing,
        "another setting: optim.batch_size: 8, not 4",
        words=f"{RESUME} --optim.batch-size 4",
    ),
    spoiled_run(
        "other version", bad.edited(INDEX, lambda tree: tree.update(format=99)), INDEX, "format 99, this cdred reads 2"
    ),
    spoiled_run("index not JSON", bad.text(INDEX, "{"), INDEX, "cannot be read", "Remove the folder"),
    spoiled_run("index a list", bad.text(INDEX, "[1]"), INDEX, "cannot be read"),
    spoiled_run("index without arrays", bad.edited(INDEX, lambda tree: tree.pop("arrays")), INDEX, "arrays"),
    spoiled_run(
        "index of nonsense", bad.edited(INDEX, lambda tree: tree.update(arrays={"x": 3})), INDEX, "cannot be read"
    ),
    spoiled_run("index gone", lambda: Path(INDEX).unlink(), INDEX, "cannot be read"),
    spoiled_run(
        "arrays cut short",
        lambda: Path(ARRAYS).write_bytes(Path(ARRAYS).read_bytes()[:-9]),
        ARRAYS,
        "is damaged",
        "Remove the folder",
    ),
    spoiled_run("arrays gone", lambda: Path(ARRAYS).unlink(), ARRAYS, "is damaged"),
    spoiled_run("arrays empty", damaged(b""), ARRAYS, "is damaged"),
    spoiled_run("arrays with a header without end", damaged(b"\xff" * 7 + b"\x7f{}"), ARRAYS, "is damaged"),
    spoiled_run("arrays that are a pickle", bad.pickled(ARRAYS), ARRAYS, "is damaged"),
    spoiled_run("arrays of another shape", resaved(first_wider), ARRAYS, "is damaged", "(3, 3)"),
    spoiled_run(
        "arrays short of one",
        resaved(lambda stored: stored.pop(next(name for name in stored if name.startswith("learner/")))),
        ARRAYS,
        "is damaged",
    ),
    spoiled_run(
        "resumed from damage",
        bad.also(lambda: Path("run/result.json").unlink(), damaged(b"x")),
        ARRAYS,
        "is damaged",
        words=RESUME,
    ),
    spoiled_run("result not JSON", bad.text("run/result.json", "{"), "result.json is not JSON", words="report run"),
    spoiled_run(
        "result a list", bad.text("run/result.json", "[]"), "result.json is not a JSON object", words="report run"
    ),
    spoiled_run(
        "result of nonsense",
        bad.edited("run/result.json", lambda tree: tree.update(eval=3)),
        "result.json",
        words="report run",
    ),
    spoiled_run(
        "result of words",
        bad.edited("run/result.json", lambda tree: tree["eval"].update(normalized=["x"])),
        "result.json",
        words="report run",
    ),
    spoiled_run("finished, result not JSON", bad.text("run/result.json", "{"), "result.json is not JSON", words=RESUME),
    spoiled_run("no metrics", lambda: Path("run/metrics.jsonl").unlink(), "no metrics.jsonl", words="report run"),
    spoiled_run(
        "metrics of words",
        bad.text("run/metrics.jsonl", json.dumps({"step": 1, "kind": "train", "consistency_loss": "loss"})),
        "metrics.jsonl",
        "loss",
        words="report run",
    ),
    spoiled_run(
        "report of an unfinished run",
        bad.also(lambda: Path("run/result.json").unlink(), bad.text(CONFIG, "a: [")),
        CONFIG,
        "is not YAML",
        words="report run",
    ),
]
