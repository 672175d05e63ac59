"""Model card of a pushed run: what it is, how well it does, how to use it."""

from collections.abc import Sequence
from typing import Any

import yaml

from cdred.config import RunConfig
from cdred.hub.demos import ORIGIN_KEY
from cdred.loggers.progress import MISSING, finite, format_number, format_percent
from cdred.report.results import DEMOS_PROVENANCE_KEY
from cdred.report.statistics import bootstrap_interval, iqm
from cdred.text import plural, printable, shorten

UNKNOWN = "unknown"
# Columns of the table of seeds: key of `eval` in `result.json`, title, format.
SCORES = (
    ("return", "return", format_number),
    ("success", "success", format_percent),
    ("success_at_end", "success at the end", format_percent),
    ("normalized", "normalized return", lambda score: MISSING if score is None else f"{score:.2f}".replace("-", "−")),
)


def model_card(
    config: RunConfig,
    result: dict[str, Any],
    demos: dict[str, Any],
    steps: int,
    address: str,
    version: str,
    license: str | None,
) -> str:
    """Return the README of a pushed run, in Markdown with the front matter of the Hugging Face hub.

    Args:
        config: settings of the run, without private paths.
        result: content of `result.json`, without private paths; empty for a run that has not finished.
        demos: content of `demonstrations.json`; empty if there is none.
        steps: steps per seed at the newest checkpoint.
        address: where the run is pulled from.
        version: of cdred.
        license: identifier of a license; None for none.
    """
    tags = ["reinforcement-learning", "imitation-learning", "world-model", "jax", config.algo, config.task]
    front = {"library_name": "cdred", "pipeline_tag": "reinforcement-learning", "tags": tags}
    if license:
        front["license"] = license
    rows = {
        "task": _code(config.task),
        "method": f"{_code(config.algo)}, preset {_code(config.preset)}",
        "demonstrations": _describe_demos(config, result, demos),
        "steps per seed": f"{steps:,}" if result else f"{steps:,} of {config.steps:,}, the run has not finished",
        "seeds": ", ".join(map(str, config.seeds)),
        "trained by": f"cdred {_version(result, version)}, commit {_code(result.get('commit') or UNKNOWN)}",
        "device": _code(result.get("device") or UNKNOWN),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---

# {_plain(config.task)}, {config.algo}

An agent that was trained with cdred, imitation learning with latent world models in JAX.

| | |
| --- | --- |
{table}

## Final evaluation

{_evaluation(config, result)}

## Use

With cdred installed:

```sh
cdred pull {address} runs/pulled
cdred eval runs/pulled --episodes 20
```

```python
import cdred

agent = cdred.load("runs/pulled")
action = agent.act(obs)
```

`cdred pull` verifies size and SHA-256 of every file. Nothing is unpickled. The simulator of the task has to be
installed, and `config.yaml` names the modules that are imported for it.
"""


def _describe_demos(config: RunConfig, result: dict[str, Any], demos: dict[str, Any]) -> str:
    if config.algo == "tdmpc2":
        return "none: the method learns from the reward of the environment"
    provenance = result.get(DEMOS_PROVENANCE_KEY)
    facts = provenance if isinstance(provenance, dict) else {}
    origin = facts.get(ORIGIN_KEY)
    commit = origin.get("commit") if isinstance(origin, dict) else None
    parts = [
        f"{plural(demos.get('episodes', UNKNOWN), 'episode')}, {plural(demos.get('steps', UNKNOWN), 'step')}",
        f"given as {_code(config.demos)}",
        *(f"{key} {_code(facts[key])}" for key in ("expert", "dataset_id", "author") if facts.get(key)),
        *([f"commit {_code(commit)}"] if commit else []),
        f"SHA-256 {_code(demos.get('sha256', UNKNOWN))}",
    ]
    return "; ".join(parts)


def _evaluation(config: RunConfig, result: dict[str, Any]) -> str:
    scores = result.get("eval") or {}
    if not scores.get("return"):
        return "The run has not finished, so that it has no final evaluation."
    columns = [(title, scores[key], show) for key, title, show in SCORES if scores.get(key)]
    seeds = result.get("seeds") or list(config.seeds)
    lines = [
        _line(["seed", *(title for title, *_ in columns)]),
        _line(["---:"] * (len(columns) + 1)),
        *(_line([str(seed), *(show(values[i]) for _, values, show in columns)]) for i, seed in enumerate(seeds)),
        _line(["IQM (95 % interval)", *(_iqm(values, show) for _, values, show in columns)]),
    ]
    references = [
        f"{who} return {format_number(scores.get(f'{who}_return'))}, "
        f"success {format_percent(scores.get(f'{who}_success'))}"
        for who in ("expert", "random")
    ]
    episodes = plural(scores.get("episodes", UNKNOWN), "episode")
    return "\n".join(lines) + (
        f"\n\n{episodes} per seed that were not seen in training, without exploration. The last row is the "
        "interquartile mean over seeds with its bootstrap interval, which covers the choice of seeds; one seed has "
        f"none. For comparison: {'; '.join(references)}."
    )


def _iqm(values: Sequence[float | None], show: Any) -> str:
    known = finite(values)
    if not known:
        return MISSING
    interval = bootstrap_interval([known])
    return f"{show(iqm(known))} ({' to '.join(map(show, interval)) if interval else 'no interval'})"


def _version(result: dict[str, Any], version: str) -> str:
    versions = result.get("versions")
    return _plain((versions if isinstance(versions, dict) else {}).get("cdred", UNKNOWN)) + f" (pushed by {version})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: object) -> str:
    """Return a value as one line of text that Markdown shows as it is."""
    return shorten(printable(str(value))).replace("`", "'").replace("|", "/").replace("<", "(").replace(">", ")")


def _code(value: object) -> str:
    return f"`{_plain(value)}`"
