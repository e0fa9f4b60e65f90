"""World-model reinforcement learning as Stable-Baselines3 algorithms."""
