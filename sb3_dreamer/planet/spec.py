"""Architecture of PlaNet: a frozen spec with named sizes."""

from dataclasses import dataclass

from sb3_dreamer.common.spec import Sizes, one_of, positive_integers

PATHS = ("rssm", "stochastic", "deterministic")


@dataclass(frozen=True)
class PlaNetSpec:
    """Sizes and forms of all networks; defaults are those of the paper and its code (arXiv 1811.04551, Appendix A).

    :param deter: GRU units D (none with ``path="stochastic"``)
    :param stoch: Gaussian latents S
    :param units: width of the dense layers of the transition, prior and posterior
    :param head_units: width of the dense layers of the reward head, and of encoder and decoder of vectors
    :param head_layers: how many of these there are
    :param cnn_depth: channels of the first convolution
    :param act: activation
    :param min_std: smallest standard deviation of a latent
    :param image_bits: bits of each pixel; 8 keeps all
    :param path: ``rssm``; ``stochastic``: no GRU, everything passes through the sample; ``deterministic``: every latent
        is its mean (the paper's ablations)
    :param symlog_inputs: squash vector observations with symlog, as DreamerV3 does; the paper has no vectors
    :param end_head: learn when episodes end, and plan with it; the paper's tasks do not end
    :param mlp_units: widths of the head layers, one by one (``net_arch``), instead of the two above
    """

    deter: int = 200
    stoch: int = 30
    units: int = 200
    head_units: int = 300
    head_layers: int = 3
    cnn_depth: int = 32
    act: str = "relu"
    min_std: float = 0.1
    image_bits: int = 5
    path: str = "rssm"
    symlog_inputs: bool = False
    end_head: bool = False
    mlp_units: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        positive_integers(self, ("deter", "stoch", "units", "head_units", "head_layers", "cnn_depth", "image_bits"))
        one_of("path", self.path, PATHS)
        if not self.min_std > 0.0:
            raise ValueError(f"min_std={self.min_std!r} must be positive")

    @property
    def mlp(self) -> tuple[int, ...]:
        """Widths of the head layers."""
        return self.mlp_units if self.mlp_units is not None else (self.head_units,) * self.head_layers


SIZES: dict[str, PlaNetSpec] = {
    "debug": PlaNetSpec(deter=16, stoch=4, units=16, head_units=16, head_layers=1, cnn_depth=2),
    "small": PlaNetSpec(deter=100, stoch=16, units=100, head_units=100, head_layers=2, cnn_depth=16),
    "paper": PlaNetSpec(),
}
_sizes = Sizes(SIZES, image="paper", vector="small")
resolve_size, resolve_spec = _sizes.resolve_size, _sizes.resolve_spec
