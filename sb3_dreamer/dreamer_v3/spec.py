"""Architecture of DreamerV3: frozen specs with named sizes, one class for each released family."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sb3_dreamer.common.spec import Sizes, one_of, positive_integers
from sb3_dreamer.core.estimators import ESTIMATORS
from sb3_dreamer.core.representation import WITHOUT_DECODER
from sb3_dreamer.core.types import ObsKey

REGRESSIONS = ("twohot", "symlog", "mse")
WIDTHS = {"units", "layers", "mlp_units", "net_arch"}  #: fields that set the widths of all dense stacks
PATHWISE = [name for name in ESTIMATORS if name != "score_function"]  #: estimators that give a gradient to a sample


@dataclass(frozen=True)
class DreamerV3Spec:
    """Sizes and forms of all networks; defaults are those of the 2023 version (arXiv 2301.04104v1, Table B.1).

    :param deter: GRU units D
    :param stoch: categorical latents S
    :param classes: classes of each latent K
    :param cnn_depth: channels of the first convolution
    :param units: width of every dense layer
    :param layers: dense layers of encoder, decoder, heads, actor and critic
    :param act: activation
    :param unimix: share of the uniform distribution in latents and discrete actors
    :param symlog_inputs: squash vector inputs with symlog
    :param bins: two-hot bins of the reward and value heads
    :param mlp_units: widths of the dense stacks, one by one, instead of ``layers`` times ``units`` (SB3's ``net_arch``)
    :param codec_units: widths of the encoder's and the decoder's stack for vectors; None: as all other stacks
    :param regression: form of reward head and critic: ``twohot``, or the ablations ``symlog`` and ``mse`` (Figure D.2)
    :param action_masks: learn which discrete actions are allowed, and dream with it
    :param hard_continue: dreams continue or end by the more likely flag, as in the 2023 code; False multiplies with the
        probability, as in the 2024 version: better where ends are rare and the model is too coarse to time them
    :param latent_estimator: gradient through the latents, see :mod:`sb3_dreamer.core.estimators`; the paper's is
        ``straight_through``
    :param latent_temperature: of that estimator
    :param actor_estimator: gradient through discrete actions. None: the actor learns by REINFORCE (paper); a name: by
        dynamics gradients with that estimator
    :param actor_temperature: of that estimator
    :param exploration: ``plan2explore`` adds an ensemble and an actor-critic that collects where the ensemble disagrees
        (see ``explore_until``); None: the task's actor collects
    :param ensemble: heads of the ensemble
    :param representation: what shapes the latent state: ``decoder``, reconstruction; ``barlow`` or ``contrastive``, an
        objective without a decoder (see :mod:`sb3_dreamer.core.representation`)
    """

    family: ClassVar[str] = "2023"

    deter: int = 512
    stoch: int = 32
    classes: int = 32
    cnn_depth: int = 32
    units: int = 512
    layers: int = 2
    act: str = "silu"
    unimix: float = 0.01
    symlog_inputs: bool = True
    bins: int = 255
    mlp_units: tuple[int, ...] | None = None
    codec_units: tuple[int, ...] | None = None
    regression: str = "twohot"
    action_masks: bool = False
    hard_continue: bool = True
    latent_estimator: str = "straight_through"
    latent_temperature: float = 1.0
    actor_estimator: str | None = None
    actor_temperature: float = 1.0
    exploration: str | None = None
    ensemble: int = 8
    representation: str = "decoder"

    def __post_init__(self) -> None:
        positive_integers(self, ("deter", "stoch", "classes", "cnn_depth", "units", "layers", "bins", "ensemble"))
        if not 0.0 <= self.unimix < 1.0:
            raise ValueError(f"unimix={self.unimix!r} must be at least 0 and less than 1")
        one_of("regression", self.regression, REGRESSIONS)
        one_of("representation", self.representation, ("decoder", *WITHOUT_DECODER))
        if self.exploration is not None:
            one_of("exploration", self.exploration, ("plan2explore",))
            if self.ensemble < 2:
                raise ValueError(f"ensemble={self.ensemble!r} must be at least 2: one network disagrees with none")
        one_of("latent_estimator", self.latent_estimator, PATHWISE)
        if self.actor_estimator is not None:
            one_of("actor_estimator", self.actor_estimator, PATHWISE)
            if self.action_masks:
                raise ValueError(
                    f"actor_estimator={self.actor_estimator!r} does not go with action_masks=True: use None"
                )
        for name in ("latent_temperature", "actor_temperature"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")

    @property
    def mlp(self) -> tuple[int, ...]:
        """Widths of the dense stacks."""
        return self.mlp_units if self.mlp_units is not None else (self.units,) * self.layers

    @property
    def codec_mlp(self) -> tuple[int, ...]:
        """Widths of the stacks that encode and decode vectors."""
        return self.codec_units if self.codec_units is not None else self.mlp


@dataclass(frozen=True)
class DreamerV3Spec2024(DreamerV3Spec):
    """The 2024 version (the authors' December 2024 code); parameters not named here as :class:`DreamerV3Spec`.

    :param cnn_depth: unit of the channels, which are 2, 3, 4, 4 times it
    :param layers: dense layers of encoder, decoder, actor and critic; reward and continue head have one
    :param unimix: share of the uniform distribution in the latents
    :param hidden: width of the dense layers of the RSSM
    :param blocks: blocks of the GRU
    :param actor_unimix: share of the uniform distribution in discrete actors: 0, since the released code sets 0.01 but
        its categorical head does not use it
    """

    family: ClassVar[str] = "2024"

    deter: int = 8192
    classes: int = 64
    cnn_depth: int = 64
    units: int = 1024
    layers: int = 3
    hidden: int = 1024
    blocks: int = 8
    actor_unimix: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_integers(self, ("hidden", "blocks"))
        if not 0.0 <= self.actor_unimix < 1.0:
            raise ValueError(f"actor_unimix={self.actor_unimix!r} must be at least 0 and less than 1")


def _size_2023(deter: int, depth: int, units: int, layers: int) -> DreamerV3Spec:
    """A released size: its entry in the authors' configuration leaves the stacks for vectors at 5 layers of 1024."""
    return DreamerV3Spec(deter=deter, cnn_depth=depth, units=units, layers=layers, codec_units=(1024,) * 5)


def _size_2024(deter: int, classes: int, depth: int, units: int) -> DreamerV3Spec2024:
    return DreamerV3Spec2024(deter=deter, classes=classes, cnn_depth=depth, units=units, hidden=units)


SIZES_2023: dict[str, DreamerV3Spec] = {
    "debug": DreamerV3Spec(deter=16, cnn_depth=2, units=16, layers=1, stoch=4, classes=4),
    "XXS": DreamerV3Spec(deter=128, cnn_depth=8, units=128, layers=1, stoch=16, classes=16),
    "XS": _size_2023(256, 24, 256, 1),
    "S": _size_2023(512, 32, 512, 2),
    "M": _size_2023(1024, 48, 640, 3),
    "L": _size_2023(2048, 64, 768, 4),
    "XL": _size_2023(4096, 96, 1024, 5),
}
SIZES_2024: dict[str, DreamerV3Spec] = {
    "debug2024": DreamerV3Spec2024(deter=32, stoch=4, classes=4, cnn_depth=2, units=16, hidden=16, layers=1, blocks=4),
    "100k": DreamerV3Spec2024(
        deter=64, stoch=8, classes=8, cnn_depth=4, units=64, hidden=64, layers=1, bins=63
    ),  # ours, for small tasks on a CPU
    "1m": _size_2024(512, 4, 4, 64),
    "12m": _size_2024(2048, 16, 16, 256),
    "25m": _size_2024(3072, 24, 24, 384),
    "50m": _size_2024(4096, 32, 32, 512),
    "100m": _size_2024(6144, 48, 48, 768),
    "200m": _size_2024(8192, 64, 64, 1024),
    "400m": _size_2024(12288, 96, 96, 1536),
}
SIZES: dict[str, DreamerV3Spec] = SIZES_2023 | SIZES_2024
_sizes = Sizes(SIZES, image="S", vector="100k")
resolve_size = _sizes.resolve_size


def resolve_spec(model_size: str, keys: tuple[ObsKey, ...], overrides: dict[str, Any]) -> DreamerV3Spec:
    """The spec of a named size with some fields replaced.

    :param model_size: a name in ``SIZES``, or ``auto`` (see :func:`resolve_size`)
    :param keys: observation keys
    :param overrides: fields of the spec, or ``net_arch`` (list of widths) for all dense stacks. Widths that are chosen
        for all stacks hold for vectors, too, unless ``codec_units`` is among them
    :raises ValueError: for an unknown size or field, with the nearest known one
    """
    if WIDTHS & overrides.keys():
        overrides = {"codec_units": None, **overrides}
    return _sizes.resolve_spec(model_size, keys, overrides)
