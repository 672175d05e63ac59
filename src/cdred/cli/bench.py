"""`cdred bench`."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdred.cli.words import understood
from cdred.config import AlgoName, PrecisionConfig, PresetName, check, preset
from cdred.errors import UserError
from cdred.files import check_output_file
from cdred.types import VectorizationMode

if TYPE_CHECKING:
    from cdred.bench.benchmarks import Bench


@dataclass(frozen=True)
class BenchOptions:
    """Time an update, a plan, the whole loop on a task, seeds in lockstep, or all of them as sizes grow."""

    what: Annotated[Literal["update", "plan", "loop", "seeds", "growth"], tyro.conf.Positional]
    """update, plan: one gradient step, and the plan of one step, with what it computes, the share of the machine's
    best and where the time goes; loop: steps per second on TASK; seeds: 1 to 16 in lockstep; growth: as seeds,
    environments, targets, widths and replay grow."""
    preset: PresetName = "cpu"
    """The sizes."""
    algo: AlgoName = "cdred"
    """The method."""
    seeds: int = 1
    """In lockstep (update, plan, loop)."""
    envs: int = 1
    """Environments per seed (plan, loop)."""
    task: str = "metaworld/button-press"
    """For `loop`."""
    vectorization: VectorizationMode = "sync"
    """Who steps its simulators."""
    overlap: bool = False
    """Whether it learns while they do."""
    repeats: int = 7
    """Whose median is told."""
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    json: Path | None = None
    """A file for the figures, with commit, device and versions."""
    plot: Path | None = None
    """A picture of `growth`."""


def main(arguments: list[str]) -> None:
    """Measure, print, write."""
    options = understood(lambda words: tyro.cli(BenchOptions, args=words, prog="cdred bench"), arguments, "cdred bench")
    if options.plot and options.what != "growth":
        raise UserError("--plot draws `growth` alone.")
    for file in (options.json, options.plot):
        check_output_file(file)
    if options.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {options.repeats}.")
    config = replace(
        preset(options.preset),
        task=options.task,
        algo=options.algo,
        seeds=tuple(range(options.seeds)),
        envs=options.envs,
        vectorization=options.vectorization,
        overlap=options.overlap,
        precision=options.precision,
        updates_per_call=max(4, options.envs) if options.what != "loop" else 20,
    )
    check(config)
    from cdred.api import demonstrations, get_env_spec, use_compilation_cache  # after parsing: it has to wait for JAX
    from cdred.bench import benchmarks as bench
    from cdred.provenance import origin

    use_compilation_cache()
    ceiling = bench.matmul_gflops(config.precision.model)
    made_with = origin()
    print(f"{made_with['device']}, a large matrix product at {ceiling:,.0f} GFLOP/s in {config.precision.model}")
    figures: Any
    if options.what in ("update", "plan"):
        figures = _one(bench.Bench(config), options, ceiling)
    elif options.what == "loop":
        demos = demonstrations(config, get_env_spec(config.task), print)
        figures = bench.loop_rates(config, demos, options.repeats)
        print(", ".join(f"{name} {value:,.2f}" for name, value in figures.items()))
    elif options.what == "seeds":
        figures = bench.sweep(config, "seeds", options.repeats, print)
    else:
        figures = {size: bench.sweep(config, size, options.repeats, print) for size in bench.SWEEPS}
    sizes = {"preset": config.preset, "algo": config.algo, "seeds": options.seeds, "envs": options.envs}
    result = (
        made_with | sizes | {"precision": asdict(config.precision), "matmul_gflops": ceiling, options.what: figures}
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        from cdred.bench.scaling_plot import draw_growth

        draw_growth(figures, options.plot)


def _one(bench: "Bench", options: BenchOptions, ceiling: float) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    measured = (bench.update if options.what == "update" else bench.plan)(options.repeats, ceiling)
    print(
        f"{options.what}: {measured.ms:.2f} ms, {measured.gflop:.2f} GFLOP at {measured.gflops:,.0f} GFLOP/s, "
        f"{measured.share:.0%} of that; {measured.mb:,.0f} MB touched; compiled in {measured.compile_s:.1f} s"
    )
    table = Table("where the time goes", "forwards ms", "backwards ms", "share")
    whole = sum(part.total_ms for part in measured.parts)
    for part in measured.parts:
        table.add_row(part.part, f"{part.forward_ms:.2f}", f"{part.backward_ms:.2f}", f"{part.total_ms / whole:.0%}")
    Console().print(table)
    return measured._asdict() | {"parts": {part.part: [part.forward_ms, part.backward_ms] for part in measured.parts}}
