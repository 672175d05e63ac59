"""Suggestions for misspelt names in error messages, and for the names that other libraries use."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

# Similarity below which a setting is not suggested: short names resemble each other by chance.
MIN_SIMILARITY = 0.65

# Setting, and the words that other libraries have for it.
SETTING_ALIASES = {
    "algo": "agent algorithm method",
    "buffer-size": "buffer buffer-capacity capacity replay-capacity replay-size",
    "checkpoint-every": "checkpoint-interval save-every save-freq save-interval",
    "demos": "data dataset demo demonstrations expert n-demos num-demos",
    "envs": "env-count n-envs num-envs num-environments",
    "eval-episodes": "n-eval-episodes num-eval-episodes",
    "eval-every": "eval-freq eval-frequency eval-interval",
    "log-every": "log-freq log-frequency log-interval",
    "model.hidden-dims": "hidden-dim hidden-size hidden-sizes net-arch width widths",
    "mppi.horizon": "plan-horizon planning-horizon",
    "optim.batch-size": "batch batchsize bs minibatch-size",
    "optim.discount-min": "discount discount-factor gamma",
    "optim.grad-clip-norm": "clip-grad clip-grad-norm grad-clip max-grad-norm",
    "optim.learning-rate": "lr",
    "out": "dir folder log-dir logdir o out-dir outdir output output-dir run-dir save-dir",
    "precision.model": "dtype matmul-precision precision",
    "seeds": "random-seed random-state rng-seed seed",
    "steps": "env-steps epochs max-steps n-steps num-epochs num-steps num-updates timesteps total-steps "
    "total-timesteps train-steps updates",
    "steps-per-update": "update-to-data utd utd-ratio",
    "trackers": "logger loggers report-to tensorboard track tracker tracking trackio wandb",
    "task": "domain env env-id env-name environment task-name",
    "vectorization": "n-jobs n-workers num-workers workers",
    "video": "record-video render save-video",
}
# Words that no setting corresponds to, and advice.
ADVICE = {
    "accelerator cuda device devices gpu gpus num-gpus": (
        " There is no setting for the device: JAX uses the best one it finds; choose with the environment variables "
        "JAX_PLATFORMS (cpu or cuda) and CUDA_VISIBLE_DEVICES."
    ),
    "continue restore resume": " A run resumes when it is started again with the same settings and folder.",
}
# Value of a setting, and the words of other libraries for it or for what it comes closest to.
VALUE_ALIASES = {
    "bc": "behavioral-cloning behavioural-cloning cloning",
    "bfloat16": "bf16 float16 fp16 half",
    "cpu": "default fast small",
    "debug": "test tiny",
    "float32": "f32 fp32 full",
    "gail-sac": "dac",
    "iqlearn-sac": "iq iq-learn iqlearn sqil",
    "iqmpc": "iq-mpc",
    "mppi": "cem icem mpc plan",
    "paper": "full large published",
    "policy": "none pi",
    "process": "async processes subproc",
    "sync": "none serial",
    "tdmpc2": "td-mpc td-mpc2 tdmpc",
    "tensorboard": "tb tensorboardx",
    "thread": "threads",
    "wandb": "w&b weights-and-biases wb",
}


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "", num: int = 1) -> str:
    """Return ` Did you mean ...?` with the known names closest to `word`, or an empty string if none is close.

    Args:
        word: the unknown name.
        known: the valid names.
        prefix: written before each suggestion.
        num: maximum number of suggestions.
    """
    return _question([prefix + name for name in get_close_matches(word, list(known), n=num)])


def suggest_value(word: object, known: Sequence[str]) -> str:
    """Return a suggestion for the value of a setting that is none of the `known` ones: a synonym before a near miss."""
    if not isinstance(word, str):
        return ""
    synonyms = [name for name in known if _plain(word) in VALUE_ALIASES.get(name, "").split()]
    return _question(synonyms) or did_you_mean(word.lower(), known)


def suggest_setting(name: str, known: Iterable[str]) -> str:
    """Return a suggestion, or advice, for the unknown name of a setting; an empty string if no name is close.

    What other libraries call a setting comes before a name that is spelt like it. Options (`--optim.learning-rate`) and
    keywords (`optim.learning_rate`) are understood alike.

    Args:
        name: the unknown name.
        known: the names of all settings.
    """
    names = {_plain(full): full for full in known}
    word = _plain(name)
    leaf = word.rpartition(".")[2]
    advice = next((text for words, text in ADVICE.items() if leaf in words.split()), "")
    if advice:
        return advice
    synonyms = [names[full] for full, words in SETTING_ALIASES.items() if leaf in words.split() and full in names]
    # The name of a setting of a group, without the group or with another one.
    same = [original for full, original in names.items() if full.rpartition(".")[2] == leaf]
    if synonyms or same:
        return _question([*synonyms, *(full for full in same if full not in synonyms)][:3])
    closest = max(names, key=lambda full: _similarity(word, full), default="")
    return _question([names[closest]] if _similarity(word, closest) >= MIN_SIMILARITY else [])


def _similarity(word: str, full: str) -> float:
    """Compare with a setting's full name, and with its last part if `word` names no group."""
    candidates = (full,) if "." in word else (full, full.rpartition(".")[2])
    return max(SequenceMatcher(None, word, candidate).ratio() for candidate in candidates)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def _question(names: Sequence[str]) -> str:
    return f" Did you mean {', '.join(names)}?" if names else ""
