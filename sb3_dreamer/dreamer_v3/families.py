"""The two released families of DreamerV3, by name."""

from sb3_dreamer.dreamer_v3.family2023 import Family2023
from sb3_dreamer.dreamer_v3.family2024 import Family2024
from sb3_dreamer.dreamer_v3.spec import SIZES

Family = type[Family2023] | type[Family2024]
FAMILIES: dict[str, Family] = {"2023": Family2023, "2024": Family2024}


def family_of(model_size: str) -> Family:
    """The family that a size belongs to; an unknown size (refused elsewhere) and ``auto`` count as 2023."""
    return FAMILIES[SIZES[model_size].family if model_size in SIZES else "2023"]
