"""rejax's PPO on the simulator, through `jaxsim.FlatObservation`.

    pip install "rejax>=0.1.3,<0.2"
    python examples/rejax_ppo.py

rejax masks no items: an item that the user has had earns nothing. So PPO also learns not to repeat itself.
"""

import argparse

import jax
from rejax import PPO
from rejax.evaluate import evaluate

import jaxsim


def main(
    dataset: str = "ml-100k", total_timesteps: int = 500_000, seed: int = 0
) -> tuple[float, float]:
    """Train and evaluate; the share of recommendations that are liked, before the training and after it."""
    env, params = jaxsim.make(jaxsim.load_dataset(dataset))
    algorithm = PPO.create(
        env=jaxsim.FlatObservation(env),
        env_params=params,
        total_timesteps=total_timesteps,
        eval_freq=total_timesteps // 4,
        num_envs=128,
        num_steps=8,
        num_minibatches=8,
        num_epochs=2,
        learning_rate=1e-3,
        gamma=0.4,  # what is liked now matters more here than what follows from it
        gae_lambda=0.2,
        ent_coef=0.001,
        max_grad_norm=10.0,
        agent_kwargs={"hidden_layer_sizes": (64,)},
    )

    def measure(algorithm, state, key):
        """Lengths and returns of 128 sessions. The params are arguments, or XLA would copy them."""
        act = algorithm.make_act(state)
        length = params.max_steps_in_episode
        return evaluate(act, key, algorithm.env, algorithm.env_params, 128, length)

    algorithm = algorithm.replace(eval_callback=measure)
    _, (lengths, returns) = jax.jit(PPO.train)(algorithm, jax.random.key(seed))
    shares = returns.sum(axis=1) / lengths.sum(axis=1)
    for number, (share, likes) in enumerate(zip(shares, returns, strict=True)):
        steps = number * total_timesteps // 4
        print(
            f"{steps:9,} steps: {share:.2f} of the recommendations are liked, {likes.mean():.2f} in a session"
        )
    return float(shares[0]), float(shares[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--total-timesteps", type=int, default=500_000)
    try:
        main(**vars(parser.parse_args()))
    except jaxsim.InputError as error:
        raise SystemExit(f"error: {error}") from None
