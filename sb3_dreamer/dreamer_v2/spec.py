"""Architecture of DreamerV2 as a frozen spec with named sizes, and the settings of the released code by name."""

from dataclasses import dataclass
from typing import Any

from sb3_dreamer.common.spec import Sizes, one_of, positive_integers
from sb3_dreamer.core.estimators import ESTIMATORS


@dataclass(frozen=True)
class DreamerV2Spec:
    """Sizes and forms of all networks; defaults are those of the paper (arXiv 2010.02193, Table D.1).

    :param deter: GRU units D
    :param hidden: width of the dense layers inside the RSSM
    :param stoch: latent variables S
    :param classes: classes K of each categorical latent; unused by Gaussian ones
    :param latent: ``categorical`` or ``gaussian`` (Table 2, "No Discrete Latents")
    :param latent_estimator: gradient through categorical latents: ``straight_through``, ``gumbel_softmax`` or
        ``st_gumbel_softmax``
    :param actor_estimator: gradient through discrete actions, where dynamics gradients are used; as above, or
        ``score_function`` for none
    :param box_gradient: gradient of samples of the truncated normal for Box actions: ``exact``, or ``untruncated``,
        that of a normal without bounds (TensorFlow's sampler and therefore the released code)
    :param latent_std: deviation of Gaussian latents from a network output x: ``sigmoid2``, 2·sigmoid(x/2) + 0.1 (the
        released code), or ``softplus``, softplus(x) + 0.1 (PlaNet, Dreamer V1)
    :param actor_dist: distribution of Box actions: ``truncated_normal``, or ``tanh_normal`` (Dreamer V1)
    :param gru: ``layer_norm``, see below, or ``plain``, PlaNet's (Dreamer V1)
    :param cnn_depth: channels of the first convolution
    :param units: width of the dense layers of encoder, decoder, heads, actor and critic
    :param layers: their number
    :param act: activation
    :param norm: ``none``, or ``layer`` for a LayerNorm in every hidden layer (the released code's Crafter settings)
    :param layer_norm: LayerNorm in the GRU; False takes away every norm (Table 2, "No Layer Norm")
    :param discount_head: predict the discount; without it episodes never end in dreams (released code for control)
    :param mlp_units: widths of the dense stacks, one by one, instead of ``layers`` times ``units`` (SB3's ``net_arch``)
    """

    deter: int = 600
    hidden: int = 600
    stoch: int = 32
    classes: int = 32
    latent: str = "categorical"
    latent_estimator: str = "straight_through"
    actor_estimator: str = "straight_through"
    box_gradient: str = "exact"
    latent_std: str = "sigmoid2"
    actor_dist: str = "truncated_normal"
    gru: str = "layer_norm"
    cnn_depth: int = 48
    units: int = 400
    layers: int = 4
    act: str = "elu"
    norm: str = "none"
    layer_norm: bool = True
    discount_head: bool = True
    mlp_units: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        positive_integers(self, ("deter", "hidden", "stoch", "classes", "cnn_depth", "units", "layers"))
        one_of("latent", self.latent, ("categorical", "gaussian"))
        one_of("norm", self.norm, ("none", "layer"))
        one_of("box_gradient", self.box_gradient, ("exact", "untruncated"))
        one_of("latent_std", self.latent_std, ("sigmoid2", "softplus"))
        one_of("actor_dist", self.actor_dist, ("truncated_normal", "tanh_normal"))
        one_of("gru", self.gru, ("layer_norm", "plain"))
        one_of("actor_estimator", self.actor_estimator, ESTIMATORS)
        if self.latent_estimator == "score_function":
            raise ValueError(
                "latent_estimator='score_function' lets no gradient reach the encoder: use 'straight_through', "
                "'gumbel_softmax' or 'st_gumbel_softmax' (the score function is for actor_estimator)"
            )
        one_of("latent_estimator", self.latent_estimator, [name for name in ESTIMATORS if name != "score_function"])

    @property
    def mlp(self) -> tuple[int, ...]:
        """Widths of the dense stacks."""
        return self.mlp_units if self.mlp_units is not None else (self.units,) * self.layers


SIZES: dict[str, DreamerV2Spec] = {
    "debug": DreamerV2Spec(deter=16, hidden=16, cnn_depth=2, units=16, layers=1, stoch=4, classes=4),
    "XXS": DreamerV2Spec(deter=128, hidden=128, cnn_depth=8, units=128, layers=1, stoch=16, classes=16),
    "XS": DreamerV2Spec(deter=256, hidden=256, cnn_depth=16, units=256, layers=2),
    "S": DreamerV2Spec(deter=400, hidden=400, cnn_depth=32, units=400, layers=3),
    "paper": DreamerV2Spec(),
    # The released code's configs.yaml; its Atari networks are the paper's.
    "atari": DreamerV2Spec(),
    "dmc": DreamerV2Spec(deter=200, hidden=200, discount_head=False),
    "crafter": DreamerV2Spec(deter=1024, hidden=1024, norm="layer"),
    # Dreamer (arXiv 1912.01603, Appendix A); the released code has 400 units, in stacks of 2 to 4 layers.
    "dreamer_v1": DreamerV2Spec(
        deter=200,
        hidden=200,
        stoch=30,
        latent="gaussian",
        latent_std="softplus",
        actor_dist="tanh_normal",
        gru="plain",
        cnn_depth=32,
        units=300,
        layers=3,
        layer_norm=False,
        discount_head=False,
    ),
}

_RELEASED: dict[str, Any] = {"batch_size": 16, "batch_length": 50, "buffer_size": 2_000_000}

#: Constructor arguments of the released code, ``DreamerV2(policy, env, **DreamerV2.presets["atari"])``, and of the
#: first Dreamer (arXiv 1912.01603, Appendix A, for Box actions; what it does not print is from its released code).
#: Updates: one per 16 (Atari) or 5 agent steps, as train ratios of a batch of 16 x 50. Environments: see
#: ``make_env(..., preset="dreamerv2")``. Not taken over: oversampled episode ends; rows of replay may span episodes.
PRESETS: dict[str, dict[str, Any]] = {
    "atari": _RELEASED
    | {
        "model_size": "atari",
        "train_ratio": 50,
        "learning_starts": 50_000,
        "gamma": 0.999,
        "learning_rate": 2e-4,
        "actor_learning_rate": 4e-5,
        "critic_learning_rate": 1e-4,
        "rho": 1.0,
        "ent_coef": 1e-3,
        "kl_scale": 0.1,
        "free_nats": 0.0,
        "discount_scale": 5.0,
        "tanh_rewards": True,
    },
    "dmc": _RELEASED
    | {
        "model_size": "dmc",
        "train_ratio": 160,
        "learning_starts": 1000,
        "pretrain": 100,
        "gamma": 0.99,
        "learning_rate": 3e-4,
        "actor_learning_rate": 8e-5,
        "critic_learning_rate": 8e-5,
        "rho": 0.0,
        "ent_coef": 1e-4,
        "kl_scale": 1.0,
        "free_nats": 1.0,
    },
    "crafter": _RELEASED
    | {
        "model_size": "crafter",
        "train_ratio": 160,
        "learning_starts": 10_000,
        "gamma": 0.999,
        "learning_rate": 1e-4,
        "actor_learning_rate": 1e-4,
        "critic_learning_rate": 1e-4,
        "rho": 1.0,
        "ent_coef": 3e-3,
        "kl_scale": 1.0,
        "free_nats": 0.0,
        "tanh_rewards": True,
    },
    "dreamer_v1": {
        "model_size": "dreamer_v1",
        "train_ratio": 500,  # code: 100 updates every 500 agent steps
        "learning_starts": 2500,  # 5 episodes of 500 agent steps
        "pretrain": 100,  # code
        "exploration_noise": 0.3,
        "gamma": 0.99,
        "learning_rate": 6e-4,
        "actor_learning_rate": 8e-5,
        "critic_learning_rate": 8e-5,
        "weight_decay": 0.0,  # code
        "rho": 0.0,
        "ent_coef": 0.0,
        "kl_scale": 1.0,
        "kl_balance": None,
        "free_nats": 3.0,
        "target_update_interval": 1,  # with tau=1 the slow critic is the critic: there is no target network
    },
}
_sizes = Sizes(SIZES, image="paper", vector="XXS")
resolve_size, resolve_spec = _sizes.resolve_size, _sizes.resolve_spec
