"""Shared by the ``spec.py`` of every algorithm: checks of names, sizes by name, replaced fields."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from sb3_dreamer.core.types import ObsKey
from sb3_dreamer.hints import near

Spec = TypeVar("Spec")
#: policy_kwargs of SB3, and what takes their place
OF_SB3 = {
    "optimizer_class": "the optimizers are those of the paper; leave it out",
    "optimizer_kwargs": "the optimizers are those of the paper; see learning_rate, max_grad_norm and their like",
    "features_extractor_class": "the encoder belongs to the world model; see cnn_depth, units and layers",
    "features_extractor_kwargs": "the encoder belongs to the world model; see cnn_depth, units and layers",
    "share_features_extractor": "actor and critic read the latent state; leave it out",
    "ortho_init": "weights start as in the paper; leave it out",
    "log_std_init": "the actor predicts its deviation; leave it out",
    "n_critics": "there is one critic; leave it out",
}


def one_of(what: str, value: Any, known: Iterable[Any]) -> None:
    """Refuse a value that is not known.

    :param what: name of the argument
    :raises ValueError: with the nearest known value and all of them
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"{what}={value!r} is unknown{near(value, known)}: use {', '.join(map(repr, known))}")


def replace_fields(spec: Spec, overrides: Mapping[str, Any]) -> Spec:
    """A frozen spec with some fields replaced.

    :param spec: a dataclass with a field ``mlp_units``
    :param overrides: fields of the spec, ``net_arch`` (list of widths, becomes ``mlp_units``) or ``activation_fn``
        (becomes ``act``)
    :raises ValueError: for an unknown field, with the nearest known one
    """
    values = dict(overrides)
    if "net_arch" in values:
        values["mlp_units"] = net_arch_widths(values.pop("net_arch"))
    if "activation_fn" in values:
        values["act"] = activation_name(values.pop("activation_fn"))
    fields = {field.name: field.type for field in dataclasses.fields(spec)}  # type: ignore[arg-type]
    names = list(fields)
    for name, value in values.items():
        if name in OF_SB3:
            raise ValueError(f"policy_kwargs has {name!r}, which world-model policies do not have: {OF_SB3[name]}")
        if name not in names:
            raise ValueError(
                f"policy_kwargs has {name!r}, which is unknown{near(name, names)}: use net_arch or {', '.join(names)}"
            )
        if fields[name] is bool and not isinstance(value, bool):
            raise ValueError(f"policy_kwargs has {name}={value!r}: it must be True or False")
    return dataclasses.replace(spec, **values)  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True)
class Sizes(Generic[Spec]):
    """Specs by the name of their size, and what ``auto`` stands for.

    :param specs: by name
    :param image: the size that ``auto`` takes as soon as there is an image
    :param vector: the size that it takes otherwise
    """

    specs: Mapping[str, Spec]
    image: str
    vector: str

    def resolve_size(self, model_size: str, keys: tuple[ObsKey, ...]) -> str:
        """The name of a size, for the observation keys.

        :raises ValueError: for an unknown size, with the nearest known one
        """
        if model_size == "auto":
            return self.image if any(key.kind == "image" for key in keys) else self.vector
        one_of("model_size", model_size, ["auto", *self.specs])
        return model_size

    def resolve_spec(self, model_size: str, keys: tuple[ObsKey, ...], overrides: Mapping[str, Any]) -> Spec:
        """The spec of a named size with some fields replaced; see :meth:`resolve_size` and :func:`replace_fields`.

        :raises ValueError: for an unknown size, field or form, with the nearest known one
        """
        return replace_fields(self.specs[self.resolve_size(model_size, keys)], overrides)


def activation_name(activation: Any) -> str:
    """SB3's ``activation_fn``, a class or its name, as the name that ``act`` takes.

    :raises ValueError: for an activation that the networks do not have
    """
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)
    one_of("activation_fn", name.lower(), ("silu", "elu", "relu", "tanh"))
    return name.lower()


def net_arch_widths(net_arch: Any) -> tuple[int, ...]:
    """SB3's ``net_arch`` as the widths of our dense stacks.

    :raises ValueError: for anything but a list of positive integers, or a dict whose lists are all the same
    """
    if isinstance(net_arch, dict) and (unknown := net_arch.keys() - {"pi", "qf", "vf"}):
        raise ValueError(f"net_arch={net_arch!r} has {sorted(unknown)[0]!r}, which is unknown: pass one list of widths")
    widths = next(iter(net_arch.values())) if isinstance(net_arch, dict) and net_arch else net_arch
    if isinstance(net_arch, dict) and any(other != widths for other in net_arch.values()):
        raise ValueError(
            f"net_arch={net_arch!r} has different lists, and all dense stacks have the same widths: pass one list"
        )
    if not isinstance(widths, list | tuple) or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"net_arch={net_arch!r} must be a list of layer widths, for example [256, 256]")
    return tuple(widths)


def positive_integers(spec: object, names: Iterable[str]) -> None:
    """Refuse sizes that are not positive integers.

    :raises ValueError: naming the field
    """
    for name in names:
        value = getattr(spec, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r} must be a positive integer")
