"""PPO, TRPO, A2C and DQN, and what they share: networks, rollouts, advantages, replay memory, policies."""
