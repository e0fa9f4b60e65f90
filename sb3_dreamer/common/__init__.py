"""The shell towards Stable-Baselines3: replay, policy, algorithm base and files."""
