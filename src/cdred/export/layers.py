"""Policy of a trained agent as a list of layers, from a raw observation to an action in the environment's units."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float32

from cdred.action_units import round_inwards
from cdred.algos.bc import BCState
from cdred.errors import UserError
from cdred.export.numpy_policy import Layer
from cdred.models.actor_critic import ObsActorCritic
from cdred.models.world_model import WorldModel
from cdred.nn.image_encoder import ImageEncoder
from cdred.nn.layers import LAYER_NORM_EPS, MLP, Linear, NormedLinear, SimNorm, mish
from cdred.nn.normalizer import LIMIT, ObsNormalizer
from cdred.types import EnvSpec


def policy_layers(learner: Any, spec: EnvSpec, *, pretrained: bool) -> list[Layer]:
    """Return the layers of a policy's mode; observations are normalised and actions scaled in them.

    Args:
        learner: state of an algorithm, of one seed.
        spec: the task.
        pretrained: export the pretrained policy in place of the trained one.

    Raises:
        UserError: the algorithm has other networks than those of this package, or the task has images.
    """
    if spec.image_size is not None:
        raise UserError(f"policies of camera images cannot be exported, and {spec.task} has them: act with cdred.load.")
    normalizer, networks = _networks(learner, pretrained)
    layers = [layer for network in networks for layer in _mlp(network)]
    # A component that marks absorbing states is 0 at every observation, and the outputs beyond A are standard
    # deviations, which the mode does not depend on.
    obs_dim = int(np.prod(spec.obs_shape))
    first, last = (pick(i for i, (name, _) in enumerate(layers) if name == "linear") for pick in (min, max))
    layers[first] = _linear(layers[first][1]["weight"][:obs_dim], layers[first][1]["bias"])
    actions = slice(spec.action_dim)
    layers[last] = _linear(layers[last][1]["weight"][:, actions], layers[last][1]["bias"][actions])
    return [*_normalize(normalizer), *layers, ("tanh", {}), _to_bounds(spec)]


def _networks(learner: Any, pretrained: bool) -> tuple[ObsNormalizer | None, tuple[MLP, ...]]:
    """Return the normaliser, and the networks between a normalised observation and the policy's output."""
    if isinstance(learner, BCState):
        return learner.policy.normalizer, (_vector_encoder(learner.policy.encoder), learner.policy.policy)
    model = getattr(learner, "model", None)
    if not isinstance(model, WorldModel | ObsActorCritic):
        raise UserError(f"the policy of {type(learner).__name__} cannot be exported: its networks are not known.")
    if pretrained:
        model = model.replace_actor(learner.pretrained.actor)
    encoder = (_vector_encoder(model.encoder),) if isinstance(model, WorldModel) else ()
    return model.normalizer, (*encoder, model.policy)


def _vector_encoder(encoder: MLP | ImageEncoder) -> MLP:
    assert not isinstance(encoder, ImageEncoder), "tasks with images are refused"
    return encoder


def _normalize(normalizer: ObsNormalizer | None) -> list[Layer]:
    if normalizer is None:
        return []
    return [("normalize", {"mean": _array(normalizer.mean), "std": _array(normalizer.std), "limit": LIMIT})]


def _mlp(mlp: MLP) -> list[Layer]:
    layers = [layer for hidden in mlp.hidden for layer in _normed_linear(hidden)]
    if isinstance(mlp.head, Linear):
        return [*layers, _linear(mlp.head.weight, mlp.head.bias)]
    return layers + _normed_linear(mlp.head)


def _normed_linear(layer: NormedLinear) -> list[Layer]:
    layers = [_linear(layer.linear.weight, layer.linear.bias)]
    if layer.norm is not None:
        norm = {"scale": _array(layer.norm.scale), "shift": _array(layer.norm.shift), "eps": LAYER_NORM_EPS}
        layers.append(("layer_norm", norm))
    if layer.activation is mish:
        return [*layers, ("mish", {})]
    if isinstance(layer.activation, SimNorm):
        return [*layers, ("simnorm", {"group": layer.activation.group})]
    raise UserError(f"a policy with the activation {layer.activation} cannot be exported.")


def _linear(weight: Array | np.ndarray, bias: Array | np.ndarray) -> Layer:
    return "linear", {"weight": _array(weight), "bias": _array(bias)}


def _to_bounds(spec: EnvSpec) -> Layer:
    low, high = spec.action_bounds
    inner_low, inner_high = (round_inwards(bound, low, high) for bound in (low, high))
    center, half_range = _array((low + high) / 2), _array((high - low) / 2)
    return "to_bounds", {"center": center, "half_range": half_range, "low": inner_low, "high": inner_high}


def _array(values: Array | np.ndarray) -> Float32[np.ndarray, "..."]:
    return np.ascontiguousarray(values, np.float32)
