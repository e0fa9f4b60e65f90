"""Weights of the authors' code under the names and in the layout of ours.

Every reordering is an index array over the rows or columns of a kernel, so that what holds for weights holds for their
gradients and changes, too.
"""

from collections.abc import Mapping

import numpy as np
import torch as th

from sb3_dreamer.core.codecs import Decoder
from sb3_dreamer.core.world_model import WorldModel

Arrays = Mapping[str, np.ndarray]


def decoder_of(world_model: WorldModel) -> Decoder:
    """The decoder, which the authors' models always have.

    :raises ValueError: for a model without one
    """
    if world_model.decoder is None:
        raise ValueError("the model has no decoder, but the weights have: make it with representation='decoder'")
    return world_model.decoder


def check_version(policy: th.nn.Module, spec: type, version: str) -> None:
    """Refuse a policy of another version than the weights are of.

    :param spec: of the policies of that version
    :param version: its name, for the message
    :raises ValueError: naming both
    """
    found = getattr(policy, "spec", None)
    if type(found) is not spec:
        what = type(policy if found is None else found).__name__
        raise ValueError(f"the weights are of {version}, and this is a {what}: pass the policy of a model of {version}")


class Renaming:
    """Takes the authors' arrays one by one and collects ours.

    Kernels are ``(in, out)`` there and ``(out, in)`` here, those of convolutions ``(h, w, in, out)`` there and
    ``(out, in, h, w)`` here.

    :param theirs: arrays by the authors' names
    :ivar left: those that have not been taken yet
    :ivar ours: arrays by our names
    """

    def __init__(self, theirs: Arrays):
        self.left = dict(theirs)
        self.ours: dict[str, np.ndarray] = {}

    def take(self, name: str) -> np.ndarray:
        """Take an array out.

        :raises ValueError: if it is not there
        """
        if name not in self.left:
            raise ValueError(f"the weights have no {name!r}: are they of the same version, observations and actions?")
        return self.left.pop(name)

    def finish(self) -> dict[str, np.ndarray]:
        """Return our arrays.

        :raises ValueError: if some of theirs were not taken
        """
        if self.left:
            raise ValueError(f"the weights have {', '.join(sorted(self.left)[:5])}, for which this model has no place")
        return self.ours

    def copy(self, theirs: str, ours: str) -> None:
        """Take an array as it is."""
        self.ours[ours] = self.take(theirs)

    def linear(
        self, theirs: str, ours: str, *, rows: np.ndarray | None = None, columns: np.ndarray | None = None
    ) -> None:
        """Take a dense layer, with its bias if it has one.

        :param rows: the input that each of our inputs is
        :param columns: the output that each of our outputs is
        """
        kernel = self.take(f"{theirs}/kernel")
        _check_inputs(theirs, kernel, len(kernel if rows is None else rows))
        kernel = kernel if rows is None else kernel[rows]
        self.ours[f"{ours}.weight"] = (kernel if columns is None else kernel[:, columns]).T
        if f"{theirs}/bias" in self.left:
            bias = self.take(f"{theirs}/bias")
            self.ours[f"{ours}.bias"] = bias if columns is None else bias[columns]

    def split_linear(self, theirs: str, parts: Mapping[str, np.ndarray]) -> None:
        """Take a dense layer whose kernel we keep in parts; its bias goes to the first.

        :param parts: for each of our layers the inputs that it sees
        """
        kernel = self.take(f"{theirs}/kernel")
        _check_inputs(theirs, kernel, sum(map(len, parts.values())))
        for ours, rows in parts.items():
            self.ours[f"{ours}.weight"] = kernel[rows].T
        if f"{theirs}/bias" in self.left:
            self.ours[f"{next(iter(parts))}.bias"] = self.take(f"{theirs}/bias")

    def joint_linear(self, theirs: tuple[str, ...], ours: str) -> None:
        """Take several dense layers of one input as one, their outputs side by side."""
        self.ours[f"{ours}.weight"] = np.concatenate([self.take(f"{name}/kernel") for name in theirs], 1).T
        self.ours[f"{ours}.bias"] = np.concatenate([self.take(f"{name}/bias") for name in theirs])

    def conv(self, theirs: str, ours: str, *, flip: bool = False) -> None:
        """Take a convolution, transposed or not, with its bias if it has one.

        :param flip: turn the kernel around, as transposed convolutions of ``jax.lax`` need
        """
        kernel = self.take(f"{theirs}/kernel")
        self.ours[f"{ours}.weight"] = (kernel[::-1, ::-1] if flip else kernel).transpose(3, 2, 0, 1)
        if f"{theirs}/bias" in self.left:
            self.copy(f"{theirs}/bias", f"{ours}.bias")


def _check_inputs(name: str, kernel: np.ndarray, inputs: int) -> None:
    """Refuse a kernel of another number of inputs than our layer has.

    :raises ValueError: naming the layer
    """
    if len(kernel) != inputs:
        raise ValueError(
            f"the weights are of another size: {name} has {len(kernel)} inputs there, {inputs} here. Are the "
            "observations, actions and sizes the same?"
        )


def channels_first(channels: int, height: int, width: int) -> np.ndarray:
    """For each entry of a flat ``(C, H, W)`` map its place in the flat ``(H, W, C)`` map."""
    return np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1).ravel()


def after(start: int, size: int) -> np.ndarray:
    """``size`` places from ``start`` on."""
    return np.arange(start, start + size)


def swapped(first: int, second: int) -> np.ndarray:
    """Places of ``[second, first]`` in ``[first, second]``."""
    return np.concatenate([after(first, second), after(0, first)])


def copy_weights(policy: th.nn.Module, weights: Arrays) -> None:
    """Copy arrays into all parameters of a policy.

    :param policy: ``model.policy``
    :param weights: by our names, as ``weights_2024`` and its like give them
    :raises ValueError: if a parameter is missing, unknown, of another shape, or not finite; nothing is changed then
    """
    params = dict(policy.named_parameters())
    if params.keys() != weights.keys():
        names = sorted(params.keys() ^ weights.keys())
        raise ValueError(f"the weights do not belong to this model: only one of both has {', '.join(names[:5])}")
    for name, param in params.items():
        if weights[name].shape != tuple(param.shape):
            raise ValueError(
                f"the weights are of another size: {name} is {weights[name].shape} there, {tuple(param.shape)} here"
            )
        if not np.isfinite(weights[name]).all():
            raise ValueError(f"the weights hold NaN or infinity ({name}): take an earlier checkpoint")
    with th.no_grad():
        for name, param in params.items():
            param.copy_(th.from_numpy(np.ascontiguousarray(weights[name])))
