"""Damaged run folders, and phrases that the error messages must contain."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import damaged_demos as bad
from cdred.checkpoint.checkpoint import FORMAT
from cli_error_cases import case, nothing

STEP = "run/checkpoints/000000040"
INDEX, ARRAYS, CONFIG = f"{STEP}/checkpoint.json", f"{STEP}/state.safetensors", "run/config.yaml"


def replaced(old, new):
    """Replace text in the run's config.yaml."""

    def make():
        before = Path(CONFIG).read_text()
        assert old in before
        Path(CONFIG).write_text(before.replace(old, new))

    return make


def resign(data):
    """Update the checksums of the index, which protect from damage but not from forgery."""
    index = json.loads(Path(INDEX).read_text())
    index.pop("crc32")
    index["files"][Path(ARRAYS).name] |= {"bytes": len(data), "crc32": zlib.crc32(data)}
    Path(INDEX).write_text(json.dumps(index | {"crc32": zlib.crc32(json.dumps(index).encode())}))


def rewritten(change):
    def make():
        stored = load_file(ARRAYS)
        change(stored)
        save_file(stored, ARRAYS)
        resign(Path(ARRAYS).read_bytes())

    return make


def first_wider(stored):
    name = next(name for name in stored if name.startswith("learner/") and stored[name].ndim == 2)
    stored[name] = np.zeros((3, 3), np.float32)


def damaged(data):
    return lambda: Path(ARRAYS).write_bytes(data)


RESUME = "train probe/point --preset debug --algo bc --demos demos.npz --steps 40 --no-video --out run"
EVAL = "eval run"


def run_error(name, make, *phrases, command=EVAL):
    return case(name, command, *phrases, make=make)


RUN_ERRORS = [
    run_error("missing folder", nothing, "gone is not a run", "config.yaml and checkpoints/", command="eval gone"),
    run_error("export of no run", nothing, "gone is not a run", "config.yaml", command="export gone --to npz"),
    run_error(
        "export without a checkpoint",
        lambda: shutil.rmtree("run/checkpoints"),
        "is not a run with a checkpoint",
        command="export run --to npz",
    ),
    run_error("export of a seed", nothing, "the seeds [0], not 7", command="export run --to npz --seed 7"),
    run_error("no checkpoint", lambda: shutil.rmtree("run/checkpoints"), "is not a run with a checkpoint"),
    run_error("no settings", lambda: Path(CONFIG).unlink(), "expected config.yaml"),
    run_error(
        "no settings to resume", lambda: Path(CONFIG).unlink(), "without its settings, config.yaml", command=RESUME
    ),
    run_error("no episodes", nothing, "--episodes must be at least 1", command=f"{EVAL} --episodes 0"),
    run_error("settings not YAML", bad.write_text(CONFIG, "a: ["), CONFIG, "is not valid YAML"),
    run_error("settings not text", bad.write_text(CONFIG, b"\xff\xfe\x00"), CONFIG, "it is not text"),
    run_error("settings too large", bad.write_text(CONFIG, "a: 1\n" * 2**18), CONFIG, "too large for settings"),
    run_error("settings a list", bad.write_text(CONFIG, "- 1"), CONFIG, "expected a mapping"),
    run_error(
        "settings with a tag",
        bad.write_text(CONFIG, "task: !!python/object/apply:os.system ['touch pwned']"),
        CONFIG,
        "tag",
        "python/object",
    ),
    run_error(
        "settings of aliases", bad.write_text(CONFIG, "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"), CONFIG, "aliases"
    ),
    run_error(
        "misspelt setting",
        replaced("\nsteps:", "\nstesp:"),
        CONFIG,
        "unknown setting stesp",
        "Did you mean steps?",
    ),
    run_error(
        "misspelt nested setting",
        replaced("  horizon:", "  horizn:"),
        CONFIG,
        "mppi.horizn",
        "Did you mean mppi.horizon?",
    ),
    run_error(
        "setting of the wrong type",
        replaced("\nsteps: 40", "\nsteps: many"),
        CONFIG,
        "steps should be a valid integer, got 'many'",
    ),
    run_error("setting not among the choices", replaced("algo: bc", "algo: bcc"), CONFIG, "algo should be 'cdred'"),
    run_error(
        "setting out of range", replaced("latent_dim: 16", "latent_dim: -16"), CONFIG, "model.latent_dim should be"
    ),
    run_error("no seeds", replaced("seeds:\n- 0", "seeds: []"), CONFIG, "--seeds must be"),
    run_error("other task", replaced("task: probe/point", "task: probe/dying"), "does not fit", "config.yaml"),
    run_error("unknown task", replaced("task: probe/point", "task: probe/nowhere"), "no task 'probe/nowhere'"),
    run_error(
        "other latent_dim",
        replaced("latent_dim: 16", "latent_dim: 24"),
        "does not fit: expected float32 of shape",
        "config.yaml",
    ),
    run_error("other method", replaced("algo: bc", "algo: tdmpc2"), "does not fit"),
    run_error(
        "resumed with another setting",
        nothing,
        "another setting: optim.batch_size: 8, not 4",
        command=f"{RESUME} --optim.batch-size 4",
    ),
    run_error(
        "other version",
        bad.edit_json(INDEX, lambda tree: tree.update(format=99)),
        INDEX,
        f"format 99, this cdred reads {FORMAT}",
    ),
    run_error("index not JSON", bad.write_text(INDEX, "{"), INDEX, "cannot be read", "Remove the folder"),
    run_error("index a list", bad.write_text(INDEX, "[1]"), INDEX, "cannot be read"),
    run_error("index without arrays", bad.edit_json(INDEX, lambda tree: tree.pop("arrays")), INDEX, "arrays"),
    run_error(
        "index with an invalid entry",
        bad.edit_json(INDEX, lambda tree: tree.update(arrays={"x": 3})),
        INDEX,
        "cannot be read",
    ),
    run_error("index gone", lambda: Path(INDEX).unlink(), INDEX, "cannot be read"),
    run_error(
        "arrays cut short",
        lambda: Path(ARRAYS).write_bytes(Path(ARRAYS).read_bytes()[:-9]),
        ARRAYS,
        "is damaged",
        "Remove the folder",
    ),
    run_error("arrays gone", lambda: Path(ARRAYS).unlink(), ARRAYS, "is damaged"),
    run_error("arrays empty", damaged(b""), ARRAYS, "is damaged"),
    run_error("arrays with a huge header", damaged(b"\xff" * 7 + b"\x7f{}"), ARRAYS, "is damaged"),
    run_error("arrays that are a pickle", bad.pickle_file(ARRAYS), ARRAYS, "is damaged"),
    run_error("arrays of another shape", rewritten(first_wider), ARRAYS, "is damaged", "(3, 3)"),
    run_error(
        "missing array",
        rewritten(lambda stored: stored.pop(next(name for name in stored if name.startswith("learner/")))),
        ARRAYS,
        "is damaged",
    ),
    run_error(
        "resumed from damage",
        bad.all_of(lambda: Path("run/result.json").unlink(), damaged(b"x")),
        ARRAYS,
        "is damaged",
        command=RESUME,
    ),
    run_error(
        "result not JSON", bad.write_text("run/result.json", "{"), "result.json is not JSON", command="report run"
    ),
    run_error(
        "result a list",
        bad.write_text("run/result.json", "[]"),
        "result.json is not a JSON object",
        command="report run",
    ),
    run_error(
        "result of the wrong type",
        bad.edit_json("run/result.json", lambda tree: tree.update(eval=3)),
        "result.json",
        command="report run",
    ),
    run_error(
        "result with a string for a number",
        bad.edit_json("run/result.json", lambda tree: tree["eval"].update(normalized=["x"])),
        "result.json",
        command="report run",
    ),
    run_error(
        "finished, result not JSON", bad.write_text("run/result.json", "{"), "result.json is not JSON", command=RESUME
    ),
    run_error("no metrics", lambda: Path("run/metrics.jsonl").unlink(), "no metrics.jsonl", command="report run"),
    run_error(
        "metrics with a string for a number",
        bad.write_text("run/metrics.jsonl", json.dumps({"step": 1, "kind": "train", "consistency_loss": "loss"})),
        "metrics.jsonl",
        "loss",
        command="report run",
    ),
    run_error(
        "report of an unfinished run",
        bad.all_of(lambda: Path("run/result.json").unlink(), bad.write_text(CONFIG, "a: [")),
        CONFIG,
        "is not valid YAML",
        command="report run",
    ),
]
