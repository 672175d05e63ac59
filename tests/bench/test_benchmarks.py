"""Costs and profiles of `cdred bench`, on functions with known costs."""

import itertools
import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.bench.benchmarks import SPEC, Bench, _memory_mb, loop_rates
from cdred.bench.profile import OTHER, operation_scopes, profile
from cdred.bench.scaling_plot import plot_scaling
from cdred.cli.main import main
from cdred.config import preset


def multiplications(model, reward):
    """Count the multiplications per planned step and at the end of a plan, for one z and action."""
    x = model.latent_dim + SPEC.action_dim

    def mlp(inputs, hidden_dims, outputs):
        dims = (inputs, *hidden_dims, outputs)
        return sum(a * b for a, b in itertools.pairwise(dims))

    targets = reward.num_targets * mlp(x, reward.target_hidden_dims, reward.embedding_dim)
    predictors = 2 * mlp(x, reward.predictor_hidden_dims, reward.embedding_dim)
    return {
        "step": mlp(x, model.hidden_dims, model.latent_dim) + targets + predictors,
        "end": mlp(model.latent_dim, model.hidden_dims, 2 * SPEC.action_dim)
        + model.num_critics * mlp(x, model.hidden_dims, model.num_bins),
    }


def test_cost_of_a_plan_is_that_of_its_matrix_products():
    config = preset("debug")
    widths = {"hidden_dims": (64, 64), "latent_dim": 64, "encoder_hidden_dims": (64,)}
    cdred = replace(config.cdred, target_hidden_dims=(64, 64), predictor_hidden_dims=(64, 64), embedding_dim=64)
    mppi = replace(config.mppi, iterations=3, num_samples=40)
    config = replace(config, model=replace(config.model, **widths), cdred=cdred, mppi=mppi)
    measured = Bench(config).plan(1, peak_gflops=10.0)
    per_sequence = multiplications(config.model, cdred)
    sequences = 3 * (mppi.num_samples - mppi.num_pi_trajs) + mppi.num_pi_trajs
    expected = 2e-9 * sequences * (mppi.horizon * per_sequence["step"] + per_sequence["end"])
    # Activations cost more than that; computations shared by the sequences cost less.
    assert 0.9 * expected < measured.gflop < 1.35 * expected
    assert measured.gflops == pytest.approx(measured.gflop / measured.ms * 1e3)
    assert measured.fraction_of_peak == pytest.approx(measured.gflops / 10.0)
    assert {"critics", "targets", "predictors", "dynamics"} <= {time.scope for time in measured.scopes}


def scoped(x, w):
    with jax.named_scope("critics"):
        y = jnp.sort(x @ w, axis=0)
    with jax.named_scope("policy"):
        return jnp.sum(jnp.sort(y @ w.T, axis=1)[:, 3])


def test_profile_attributes_time_to_scope_and_direction():
    x, w = jnp.ones((64, 200)), jnp.ones((200, 300))
    forward, gradient = (jax.jit(f).lower(x, w).compile() for f in (scoped, jax.grad(scoped)))
    assert {scope for scope, _ in operation_scopes(forward.as_text()).values()} <= {"critics", "policy", OTHER}
    times = {time.scope: time for time in profile(lambda: forward(x, w).block_until_ready(), forward.as_text())}
    assert {"critics", "policy"} <= times.keys()
    assert sum(time.backward_ms for time in times.values()) == 0
    backward = profile(lambda: gradient(x, w).block_until_ready(), gradient.as_text())
    assert {time.scope for time in backward if time.backward_ms} >= {"critics"}


NAMELESS = """
ENTRY %main (w: f32[8,8], x: f32[8,8]) -> f32[8,8] {
  %w = f32[8,8]{1,0} parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  %slope = f32[8,8]{1,0} multiply(%x, %x), metadata={op_name="jit(f)/transpose(jvp(critics))/mul"}
  %product = f32[8,8]{1,0} fusion(%slope, %x), kind=kCustom, calls=%fused
  %norm = f32[] fusion(%product), kind=kLoop, calls=%squares, metadata={op_name="jit(f)/optimizer/reduce_sum"}
  %rate = f32[] fusion(%norm), kind=kLoop, calls=%rates
  %decay = f32[8,8]{1,0} fusion(%w), kind=kLoop, calls=%decays
  ROOT %new = f32[8,8]{1,0} fusion(%decay, %rate), kind=kLoop, calls=%sub, metadata={op_name="jit(f)/optimizer/sub"}
}
"""


def test_nameless_gradient_is_attributed_to_its_scope():
    scopes = operation_scopes(NAMELESS)
    assert scopes["product"] == ("critics", True)
    assert scopes["rate"] == scopes["norm"] == scopes["decay"] == scopes["new"] == ("optimizer", False)


def test_loops_are_omitted_in_favour_of_their_body():
    def looped(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(y @ w), x)

    text = jax.jit(looped).lower(jnp.ones((8, 50)), jnp.ones((50, 50))).compile().as_text()
    loops = re.findall(r"%([\w.-]+) = \S+.* while\(", text)
    assert loops
    assert not set(loops) & set(operation_scopes(text))


@pytest.mark.usefixtures("toy")
def test_loop_rates_of_a_task():
    config = replace(preset("debug"), task="probe/point", algo="cdred", demos="3", envs=2)
    from cdred.envs.registry import get_env_spec
    from cdred.resolve import resolve_demos

    # Enough blocks for an episode to end while the simulators are timed.
    rates = loop_rates(config, resolve_demos(config, get_env_spec(config.task), print), 3)
    assert rates["steps_per_second"] == pytest.approx(2 * 1e3 / rates["total_ms"])
    assert rates["simulators_ms"] > 0


@pytest.mark.usefixtures("toy")
def test_compilation_of_every_function_is_measured(monkeypatch):
    compiled = []
    original = jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *args: compiled.append(1) or original(*args))
    times = Bench(replace(preset("debug"), updates_per_call=1)).compilation()
    assert list(times) == ["init", "act", "learn", "diagnose"]
    assert len(compiled) == 4
    assert all(time.instructions > 0 for time in times.values())


def test_every_number_of_seeds_has_the_learners_of_its_seeds():
    one, two = (Bench(replace(preset("debug"), seeds=seeds)).learner for seeds in ((1,), (0, 1)))
    last = jax.tree.map(lambda leaf: leaf[1:], two)
    assert all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(last)))


def test_memory_counts_a_donated_argument_once():
    x, size = jnp.ones((1000, 250)), 1.0  # MB

    def mb(donate):
        measured = _memory_mb(jax.jit(lambda x: x + 1.0, donate_argnums=donate).lower(x).compile())
        assert measured is not None
        return measured

    assert mb(()) == pytest.approx(2 * size, rel=0.01)
    assert mb((0,)) == pytest.approx(size, rel=0.01)


def test_scaling_plot_is_written(tmp_path):
    rows = {size: {n: {"update_ms": 2.0 * n, "plan_ms": 5.0} for n in (1, 2, 4)} for size in ("seeds", "width")}
    plot_scaling(rows, tmp_path / "new" / "scaling.png")
    assert (tmp_path / "new" / "scaling.png").stat().st_size > 10_000


def test_command_prints_and_writes_measurements(tmp_path, capsys):
    path = tmp_path / "b" / "f.json"
    options = ["--preset", "debug", "--repeats", "1", "--precision.model", "bfloat16", "--json", str(path)]
    assert main(["bench", "update", *options]) == 0
    output, written = capsys.readouterr().out, json.loads(path.read_text())
    assert "fraction of time" in output
    assert "critics" in output
    assert written["preset"] == "debug"
    assert written["precision"] == {"model": "bfloat16", "reward": "float32"}
    assert {"commit", "device", "versions", "matmul_gflops"} <= written.keys()
    assert np.isfinite(
        [written["update"][name] for name in ("ms", "gflop", "mb", "fraction_of_peak", "compile_s")]
    ).all()


@pytest.mark.parametrize("algo", ["bc", "tdmpc2"])
def test_bench_makes_the_buffers_that_an_algorithm_uses(algo):
    bench = Bench(replace(preset("debug"), algo=algo, updates_per_call=1))
    assert bench.update(1, 1.0).gflop > 0
    assert (bench.expert is None) == (algo == "tdmpc2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["update", "--plot", "x.png"], "--plot is for `cdred bench scaling` only"),
        (["update", "--seeds", "0"], "--seeds must be"),
        (["plan", "--envs", "0"], "--envs should be greater than or equal to 1"),
    ],
)
def test_invalid_options_are_refused(args, message, capsys):
    assert main(["bench", *args]) == 2
    assert message in capsys.readouterr().err
