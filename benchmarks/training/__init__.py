"""How fast the agents learn, beside Stable-Baselines3's agents."""
