"""A training of one of our agents: compiled, timed, and evaluated while it goes on."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from agents.algorithms.algorithm import Algorithm
from benchmarks.training.target import Attempt, Target
from jaxsim import EnvParams
from jaxsim.compilation_cache import compiled_anew

RUN_SECONDS = 2.0  # a timed run repeats the compiled program until it is at least this long


@dataclass
class Learner:
    """A compiled training that can be run in parts.

    Attributes:
        algorithm: what is trained.
        params: of the environment.
        state: of the training.
        program: (state, params) -> state and metrics after the iterations of one log interval; donates the state.
        compile_seconds: wall time of starting and compiling.
    """

    algorithm: Algorithm[Any]
    params: EnvParams
    state: Any
    program: jax.stages.Compiled
    compile_seconds: float

    @classmethod
    def compile(cls, algorithm: Algorithm[Any], params: EnvParams, seed: int) -> "Learner":
        """Start a training and compile it."""
        with compiled_anew():
            start = time.perf_counter()
            state = jax.block_until_ready(jax.jit(algorithm.init)(jax.random.key(seed), params))
            count = algorithm.config.iterations_per_log
            chunk = jax.jit(partial(algorithm.iterations, count=count), donate_argnums=0)
            program = chunk.lower(state, params).compile()
            return cls(algorithm, params, state, program, time.perf_counter() - start)

    def restart(self, seed: int) -> None:
        """Start another training with the same program."""
        self.state = jax.jit(self.algorithm.init)(jax.random.key(seed), self.params)

    @property
    def steps_per_call(self) -> int:
        """Environment steps of one call of the program."""
        config = self.algorithm.config
        return config.iterations_per_log * config.steps_per_iteration

    def seconds(self, calls: int) -> float:
        """Wall time of some calls."""
        start = time.perf_counter()
        for _ in range(calls):
            self.state, metrics = self.program(self.state, self.params)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - start

    def speeds(self, repeats: int) -> list[float]:
        """Steps per second with learning of each of `repeats` runs, after one run that does not count."""
        calls = 1 + int(RUN_SECONDS / self.seconds(calls=1))
        steps = calls * self.steps_per_call
        return [steps / self.seconds(calls) for _ in range(repeats)]

    def attempt(self, target: Target, limit: float) -> Attempt:
        """Train until the greedy policy reaches the target, `limit` seconds have passed, or training is over."""
        attempt, config = Attempt(), self.algorithm.config
        seconds, steps = 0.0, 0
        while seconds < limit and steps < config.num_iterations * config.steps_per_iteration:
            seconds += self.seconds(calls=1)
            steps += self.steps_per_call
            policy = self.algorithm.policy_of(self.algorithm.variables(self.state))
            reward = target.mean_reward(policy)
            attempt.add(seconds, steps, reward, reward >= target.reward)
            if attempt.reached_seconds is not None:
                break
        return attempt
