"""`seeding.episode_seed` on the device: NumPy's SeedSequence as a JAX function, bitwise identical."""

from itertools import permutations
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from cdred.envs.seeding import STREAMS

# Constants of NumPy's SeedSequence (numpy/random/bit_generator.pyx), which hashes the entropy words into a pool of
# four words, mixes the pool, and hashes it again to generate its output.
INIT_A, MULT_A, INIT_B, MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = 0xCA01F9DD, 0x4973F715


class EpisodeKey(NamedTuple):
    """Arguments of `seeding.episode_seed` other than the episode number, per environment."""

    seed: UInt32[Array, "S E"]
    stream: UInt32[Array, "S E"]
    env: UInt32[Array, "S E"]


def episode_seeds(key: EpisodeKey, episode: UInt32[Array, "S E"]) -> UInt32[Array, "S E"]:
    """Compute `seeding.episode_seed` elementwise."""
    word = _seed_sequence([key.seed, key.stream, key.env, episode])
    num = jnp.uint32(len(STREAMS))
    return word // num * num + key.stream


def _seed_sequence(words: list[UInt32[Array, "S E"]]) -> UInt32[Array, "S E"]:
    """Return the first word that NumPy's `SeedSequence` of four entropy words generates."""
    constant = INIT_A

    def hashed(word, multiplier=MULT_A):
        nonlocal constant
        word = word ^ jnp.uint32(constant)
        constant = constant * multiplier % 2**32
        word = word * jnp.uint32(constant)
        return word ^ (word >> jnp.uint32(16))

    pool = [hashed(word) for word in words]
    for source, target in permutations(range(len(pool)), 2):
        mixed = jnp.uint32(MIX_LEFT) * pool[target] - jnp.uint32(MIX_RIGHT) * hashed(pool[source])
        pool[target] = mixed ^ (mixed >> jnp.uint32(16))
    constant = INIT_B
    return hashed(pool[0], MULT_B)
