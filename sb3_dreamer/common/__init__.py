"""The shell toward Stable-Baselines3: replay, policy, algorithm base and files."""
