"""The nearest known name, for messages about an unknown one. Needs the standard library only."""

import difflib
from collections.abc import Iterable


def near(name: object, known: Iterable[object], cutoff: float = 0.6) -> str:
    """Suggest the closest match: `` (did you mean 'x'?)``, or nothing; case does not matter.

    :param name: what the user wrote
    :param known: what could have been meant
    :param cutoff: least likeness, 0 to 1; among hundreds of names something is always a little alike
    """
    by_lower = {str(candidate).lower(): str(candidate) for candidate in known}
    matches = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=cutoff)
    return f" (did you mean {by_lower[matches[0]]!r}?)" if matches else ""
