"""What the encoder of camera images learns by regression: states and rewards of random episodes from three images.

    python benchmarks/image_regression.py --json results/benchmarks/image_regression.json

Every variant is trained on the same images and measured on those of other episodes, as the part of a target's variance
that it explains (1: all of it, 0: no better than the mean).
"""

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from json_output import write_json

from cdred.envs.registry import make
from cdred.nn.image_encoder import ImageEncoder, random_shift
from cdred.nn.layers import Linear
from cdred.provenance import provenance
from cdred.task_name import with_obs
from cdred.types import STACKED_IMAGES, ImageObs

TASK = "dmc/cartpole-swingup?repeat=8"
TRAIN_EPISODES, TEST_EPISODES, BATCH, LATENT, HIDDEN = 20, 4, 128, 128, 128
# An action is held until another one is drawn with this probability.
CHANGE = 0.3
MEASURED_AT = (100, 200, 400, 800)


class Variant(NamedTuple):
    """Settings of an encoder and its training."""

    standardize: bool
    layer_norm: bool
    shift: int
    learning_rate: float


VARIANTS = (
    Variant(False, False, 3, 3e-4),
    Variant(False, False, 1, 3e-4),
    Variant(False, True, 1, 3e-4),
    Variant(True, False, 1, 3e-4),
    Variant(True, True, 1, 3e-4),
    Variant(True, True, 3, 3e-4),
    Variant(True, True, 1, 1e-3),
)


class Data(NamedTuple):
    """Stacked images, and states with the next reward, standardised."""

    images: np.ndarray
    targets: np.ndarray


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args()
    train, test = collect(with_obs(options.task, "both", options.size))
    rows = []
    for variant in VARIANTS:
        rows.append(variant._asdict() | {"explained": fit(variant, train, test)})
        print(rows[-1], flush=True)
    if options.json:
        about = {"task": options.task, "size": options.size, "device": str(jax.devices()[0])}
        write_json(options.json, about | {"targets": "states, then reward", "rows": rows, **provenance()})


def collect(task: str) -> tuple[Data, Data]:
    """Record episodes of random actions; return those to train on and those to test on."""
    rng, images, targets = np.random.default_rng(0), [], []
    with closing(make(task)) as env:
        for episode in range(TRAIN_EPISODES + TEST_EPISODES):
            obs = env.reset(episode)
            assert isinstance(obs, ImageObs)
            stack, action = [obs.image] * STACKED_IMAGES, np.zeros(env.spec.action_dim, np.float32)
            for _ in range(env.spec.episode_length):
                if rng.random() < CHANGE:
                    action = rng.uniform(-1, 1, action.shape).astype(np.float32)
                step = env.step(action)
                images.append(np.stack(stack))
                targets.append([*obs.state, step.reward])
                obs = step.obs
                assert isinstance(obs, ImageObs)
                stack = [*stack[1:], obs.image]
        num = TRAIN_EPISODES * env.spec.episode_length
    values = np.array(targets)
    values = ((values - values[:num].mean(axis=0)) / values[:num].std(axis=0)).astype(np.float32)
    pixels = np.array(images)
    return Data(pixels[:num], values[:num]), Data(pixels[num:], values[num:])


def fit(variant: Variant, train: Data, test: Data) -> dict[int, list[float]]:
    """Train an encoder with a linear head; return the explained variance of each target after numbers of updates."""
    encoder_key, head_key = jax.random.split(jax.random.key(0))
    encoder = ImageEncoder(
        train.images.shape[2],
        0,
        (HIDDEN,),
        LATENT,
        simnorm_group=8,
        layer_norm=variant.layer_norm,
        standardize=variant.standardize,
        key=encoder_key,
    )
    model: Any = (encoder, Linear(LATENT, train.targets.shape[1], key=head_key))
    optimizer = optax.chain(optax.clip_by_global_norm(20.0), optax.adam(variant.learning_rate))
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def predict(model, images):
        return jax.vmap(lambda image: model[1](model[0](ImageObs(jnp.zeros(0), image))))(images)

    @eqx.filter_jit
    def update(model, state, images, targets, key):
        images = random_shift(images, key, variant.shift)
        gradient = eqx.filter_grad(lambda model: jnp.mean((predict(model, images) - targets) ** 2))(model)
        changes, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, changes), state

    rng, explained = np.random.default_rng(0), {}
    for count in range(1, MEASURED_AT[-1] + 1):
        rows = rng.choice(len(train.images), BATCH)
        arrays = jnp.asarray(train.images[rows]), jnp.asarray(train.targets[rows])
        model, state = update(model, state, *arrays, jax.random.key(count))
        if count in MEASURED_AT:
            predicted = np.concatenate(
                [predict(model, jnp.asarray(part)) for part in np.split(test.images, TEST_EPISODES)]
            )
            error = ((predicted - test.targets) ** 2).mean(axis=0) / test.targets.var(axis=0)
            explained[count] = [round(float(1 - value), 2) for value in error]
    return explained


if __name__ == "__main__":
    main()
