"""Command `cdred bench`."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdred.cli.options import parse_options
from cdred.config import AlgoName, PrecisionConfig, PresetName, RunConfig, preset, validate
from cdred.console import SafeConsole
from cdred.errors import UserError
from cdred.files import check_output_file
from cdred.types import VectorizationMode

if TYPE_CHECKING:
    from cdred.bench.benchmarks import Bench


@dataclass(frozen=True)
class BenchOptions:
    """Measure the time of an update, of planning, or of the whole training loop."""

    benchmark: Annotated[Literal["update", "plan", "compile", "loop", "seeds", "scaling"], tyro.conf.Positional]
    """update, plan: one gradient step, or planning for one env step, with operations, fraction of peak FLOP/s and time
    per part; compile: compiling these, initialization and diagnostics, without the cache of compiled programs; loop:
    steps per second on TASK; seeds: update and plan for 1 to 16 vmapped seeds; scaling: update and plan for growing
    numbers of seeds, environments and targets, network widths and replay buffers."""
    preset: PresetName = "cpu"
    """Preset of all other settings."""
    algo: AlgoName = "cdred"
    """Algorithm."""
    seeds: int = 1
    """Number of vmapped seeds (update, plan, compile, loop)."""
    envs: int = 1
    """Environments per seed (plan, compile, loop)."""
    task: str = "metaworld/button-press"
    """Task of `loop`."""
    vectorization: VectorizationMode = "sync"
    """How the simulators of `loop` are stepped, as in `cdred train`."""
    repeats: int = 7
    """Number of measurements; their median is reported."""
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    json: Path | None = None
    """File for the measurements, with commit, device and versions."""
    plot: Path | None = None
    """Image file for a plot of `scaling`."""


def main(arguments: list[str]) -> None:
    """Run a benchmark, print its measurements and write them to the given files."""
    options = parse_options(BenchOptions, arguments, "cdred bench")
    if options.plot and options.benchmark != "scaling":
        raise UserError("--plot is for `cdred bench scaling` only.")
    for file in (options.json, options.plot):
        check_output_file(file)
    if options.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {options.repeats}.")
    config = _run_config(options)
    validate(config)
    import jax

    from cdred.bench import benchmarks
    from cdred.compilation_cache import use_compilation_cache  # after parsing, because it imports JAX
    from cdred.provenance import provenance

    if options.benchmark == "compile":
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        use_compilation_cache()
    peak_gflops = benchmarks.matmul_gflops(config.precision.model)
    result = provenance()
    print(f"{result['device']}, large matrix product: {peak_gflops:,.0f} GFLOP/s in {config.precision.model}")
    result |= {"preset": config.preset, "algo": config.algo, "seeds": options.seeds, "envs": options.envs}
    result |= {"precision": asdict(config.precision), "matmul_gflops": peak_gflops}
    result[options.benchmark] = measurements = _measure(config, options, peak_gflops)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        from cdred.bench.scaling_plot import plot_scaling

        plot_scaling(measurements, options.plot)


def _run_config(options: BenchOptions) -> RunConfig:
    return replace(
        preset(options.preset),
        task=options.task,
        algo=options.algo,
        seeds=tuple(range(options.seeds)),
        envs=options.envs,
        vectorization=options.vectorization,
        precision=options.precision,
        updates_per_call=max(4, options.envs) if options.benchmark != "loop" else 20,
    )


def _measure(config: RunConfig, options: BenchOptions, peak_gflops: float) -> dict[Any, Any]:
    from cdred.bench import benchmarks
    from cdred.envs.registry import get_env_spec
    from cdred.resolve import resolve_demos

    if options.benchmark in ("update", "plan"):
        return _measure_one(benchmarks.Bench(config), options, peak_gflops)
    if options.benchmark == "compile":
        times = benchmarks.Bench(config).compilation()
        for name, time in times.items():
            print(f"{name}: traced in {time.trace_s:.1f} s, compiled in {time.compile_s:.1f} s")
        return {name: time._asdict() for name, time in times.items()}
    if options.benchmark == "loop":
        demos = resolve_demos(config, get_env_spec(config.task), print)
        rates = benchmarks.loop_rates(config, demos, options.repeats)
        print(", ".join(f"{name} {value:,.2f}" for name, value in rates.items()))
        return rates
    if options.benchmark == "seeds":
        return benchmarks.sweep(config, "seeds", options.repeats, print)
    return {size: benchmarks.sweep(config, size, options.repeats, print) for size in benchmarks.SWEEPS}


def _measure_one(bench: "Bench", options: BenchOptions, peak_gflops: float) -> dict[str, Any]:
    from rich.table import Table

    measured = (bench.update if options.benchmark == "update" else bench.plan)(options.repeats, peak_gflops)
    print(
        f"{options.benchmark}: {measured.ms:.2f} ms, {measured.gflop:.2f} GFLOP at {measured.gflops:,.0f} GFLOP/s, "
        f"{measured.fraction_of_peak:.0%} of peak; {measured.mb:,.0f} MB read and written; "
        f"compiled in {measured.compile_s:.1f} s"
    )
    table = Table("part", "forward ms", "backward ms", "fraction of time")
    total = sum(time.total_ms for time in measured.scopes)
    for time in measured.scopes:
        table.add_row(time.scope, f"{time.forward_ms:.2f}", f"{time.backward_ms:.2f}", f"{time.total_ms / total:.0%}")
    SafeConsole().print(table)
    return measured._asdict() | {
        "scopes": {time.scope: [time.forward_ms, time.backward_ms] for time in measured.scopes}
    }
