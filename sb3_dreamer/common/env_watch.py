"""Notice that somebody else moved the training environments, for example ``evaluate_policy`` on them."""

from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


class EnvWatch:
    """Counts the steps and resets of a vector environment, whoever asks for them.

    The methods of the environments themselves are counted where they are in this process, so that it does not matter
    through which wrapper they are reached; those of the vector environment where they are not.

    :param env: with all its wrappers
    """

    def __init__(self, env: VecEnv):
        base = env.unwrapped
        owners: list[tuple[Any, str]] = [(base, "step_async")]
        if isinstance(base, DummyVecEnv):
            owners = [(inner.unwrapped, "step") for inner in base.envs]
        self.counted = [_count(owner, name) for owner, step in owners for name in (step, "reset")]
        self.seen = self.count()

    def count(self) -> int:
        """Calls so far."""
        return sum(method.calls for method in self.counted)

    def look(self) -> None:
        """Take the present state as the one that the agent knows."""
        self.seen = self.count()

    def moved(self) -> bool:
        """Whether there were calls since the last :meth:`look`."""
        return self.count() != self.seen


class _Counted:
    """A method of one object that counts its calls; may be copied and pickled together with the object."""

    def __init__(self, owner: Any, name: str, replaced: Any):
        self.owner, self.name, self.replaced, self.calls = owner, name, replaced, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.replaced is not None:
            return self.replaced(*args, **kwargs)
        return getattr(type(self.owner), self.name)(self.owner, *args, **kwargs)


def _count(owner: Any, name: str) -> _Counted:
    """Put a counter in place of a method, unless there is one."""
    found = vars(owner).get(name)
    if not isinstance(found, _Counted):
        found = _Counted(owner, name, found)
        setattr(owner, name, found)
    return found
