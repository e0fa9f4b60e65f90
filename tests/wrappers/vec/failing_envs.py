"""Environments that fail in their worker process, importable there."""

import os
import signal
import time

import gymnasium as gym


class Failing(gym.Wrapper):
    """CartPole that raises, exits, is killed or hangs at a step counted over its whole life."""

    def __init__(self, how, at=4, flag=None, render_mode=None):
        super().__init__(gym.make("CartPole-v1", max_episode_steps=500, render_mode=render_mode))
        self.how, self.at, self.flag, self.count = how, at, flag, 0

    def step(self, action):
        self.count += 1
        if self.count == self.at and not (self.flag and os.path.exists(self.flag)):
            if self.flag:
                with open(self.flag, "w"):
                    pass
            if self.how == "raise":
                raise RuntimeError("the pole broke")
            if self.how == "exit":
                os._exit(7)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return self.env.step(action)


class FailingReset(gym.Wrapper):
    """CartPole whose process dies in its first reset, once."""

    def __init__(self, flag):
        super().__init__(gym.make("CartPole-v1"))
        self.flag = flag

    def reset(self, **kwargs):
        if not os.path.exists(self.flag):
            with open(self.flag, "w"):
                pass
            os._exit(3)
        return self.env.reset(**kwargs)


def broken():
    """Fail while the environment is being made."""
    raise FileNotFoundError("no such rom")


def deprecated():
    """Warn as gymnasium warns of an old version."""
    gym.logger.warn("an old environment")
    return plain()


def plain():
    """Make CartPole."""
    return gym.make("CartPole-v1", max_episode_steps=500)
