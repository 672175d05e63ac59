"""What `cdred bench` counts and whom it blames, on programs whose answers are known."""

import itertools
import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdred.bench.benchmarks import SPEC, Bench, loop_rates
from cdred.bench.profile import OTHER, operation_parts, profile
from cdred.bench.scaling_plot import draw_growth
from cdred.cli.main import main
from cdred.config import preset


def nets(model, reward):
    """Multiplications of one z and a in each network, by hand."""
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


def test_a_plan_costs_what_its_matrix_products_cost():
    config = preset("debug")
    wide = {"hidden_dims": (64, 64), "latent_dim": 64, "encoder_hidden_dims": (64,)}
    reward = replace(config.reward, target_hidden_dims=(64, 64), predictor_hidden_dims=(64, 64), embedding_dim=64)
    mppi = replace(config.mppi, iterations=3, num_samples=40)
    config = replace(config, model=replace(config.model, **wide), reward=reward, mppi=mppi)
    measured = Bench(config).plan(1, ceiling=10.0)
    per_sequence = nets(config.model, reward)
    sequences = 3 * (mppi.num_samples - mppi.num_pi_trajs) + mppi.num_pi_trajs
    expected = 2e-9 * sequences * (mppi.horizon * per_sequence["step"] + per_sequence["end"])
    # Activations cost something too; what the sequences share costs less.
    assert 0.9 * expected < measured.gflop < 1.35 * expected
    assert measured.gflops == pytest.approx(measured.gflop / measured.ms * 1e3)
    assert measured.share == pytest.approx(measured.gflops / 10.0)
    assert {"critics", "targets", "predictors", "dynamics"} <= {part.part for part in measured.parts}


def scoped(x, w):
    with jax.named_scope("critics"):
        y = jnp.sort(x @ w, axis=0)
    with jax.named_scope("policy"):
        return jnp.sum(jnp.sort(y @ w.T, axis=1)[:, 3])


def test_time_is_blamed_on_the_part_that_took_it_and_on_its_direction():
    x, w = jnp.ones((64, 200)), jnp.ones((200, 300))
    forward, gradient = (jax.jit(f).lower(x, w).compile() for f in (scoped, jax.grad(scoped)))
    assert {part for part, _ in operation_parts(forward.as_text()).values()} <= {"critics", "policy", OTHER}
    shares = {share.part: share for share in profile(lambda: forward(x, w).block_until_ready(), forward.as_text())}
    assert {"critics", "policy"} <= shares.keys()
    assert sum(share.backward_ms for share in shares.values()) == 0
    backward = profile(lambda: gradient(x, w).block_until_ready(), gradient.as_text())
    assert {share.part for share in backward if share.backward_ms} >= {"critics"}


NAMELESS = """
ENTRY %main (w: f32[8,8], x: f32[8,8]) -> f32[8,8] {
  %w = f32[8,8]{1,0} parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  %slope = f32[8,8]{1,0} multiply(%x, %x), metadata={op_name="jit(f)/transpose(jvp(critics))/mul"}
  %product = f32[8,8]{1,0} fusion(%slope, %x), kind=kCustom, calls=%fused
  %norm = f32[] fusion(%product), kind=kLoop, calls=%squares, metadata={op_name="jit(f)/optimiser/reduce_sum"}
  %rate = f32[] fusion(%norm), kind=kLoop, calls=%rates
  %decay = f32[8,8]{1,0} fusion(%w), kind=kLoop, calls=%decays
  ROOT %new = f32[8,8]{1,0} fusion(%decay, %rate), kind=kLoop, calls=%sub, metadata={op_name="jit(f)/optimiser/sub"}
}
"""


def test_a_gradient_without_a_name_is_its_parts_and_not_the_optimisers():
    parts = operation_parts(NAMELESS)
    assert parts["product"] == ("critics", True)
    assert parts["rate"] == parts["norm"] == parts["decay"] == parts["new"] == ("optimiser", False)


def test_a_loop_is_not_counted_beside_what_it_contains():
    def looped(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(y @ w), x)

    text = jax.jit(looped).lower(jnp.ones((8, 50)), jnp.ones((50, 50))).compile().as_text()
    loops = re.findall(r"%([\w.-]+) = \S+.* while\(", text)
    assert loops
    assert not set(loops) & set(operation_parts(text))


@pytest.mark.usefixtures("toy")
def test_the_loop_is_timed_on_a_real_task():
    config = replace(preset("debug"), task="probe/point", algo="cdred", demos="3", envs=2)
    from cdred.api import demonstrations, get_env_spec

    # Long enough for an episode to end while the simulators are timed alone.
    rates = loop_rates(config, demonstrations(config, get_env_spec(config.task), print), 3)
    assert rates["steps_per_second"] == pytest.approx(2 * 1e3 / rates["total_ms"])
    assert rates["simulators_ms"] > 0


def test_growth_is_drawn_to_a_file(tmp_path):
    rows = {size: {n: {"update_ms": 2.0 * n, "plan_ms": 5.0} for n in (1, 2, 4)} for size in ("seeds", "width")}
    draw_growth(rows, tmp_path / "new" / "growth.png")
    assert (tmp_path / "new" / "growth.png").stat().st_size > 10_000


def test_the_verb_prints_and_writes_its_figures(tmp_path, capsys):
    path = tmp_path / "b" / "f.json"
    options = ["--preset", "debug", "--repeats", "1", "--precision.model", "bfloat16", "--json", str(path)]
    assert main(["bench", "update", *options]) == 0
    told, written = capsys.readouterr().out, json.loads(path.read_text())
    assert "where the time goes" in told
    assert "critics" in told
    assert written["preset"] == "debug"
    assert written["precision"] == {"model": "bfloat16", "reward": "float32"}
    assert {"commit", "device", "versions", "matmul_gflops"} <= written.keys()
    assert np.isfinite([written["update"][name] for name in ("ms", "gflop", "mb", "share", "compile_s")]).all()


@pytest.mark.parametrize("algo", ["bc", "tdmpc2"])
def test_each_method_gets_the_stores_that_it_learns_from(algo):
    bench = Bench(replace(preset("debug"), algo=algo, updates_per_call=1))
    assert bench.update(1, 1.0).gflop > 0
    assert (bench.expert is None, bench.validation is None) == (algo == "tdmpc2", algo != "bc")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["update", "--plot", "x.png"], "--plot draws `growth` alone"),
        (["update", "--seeds", "0"], "--seeds must be"),
        (["plan", "--envs", "0"], "--envs must divide"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, says, capsys):
    assert main(["bench", *words]) == 2
    assert says in capsys.readouterr().err
