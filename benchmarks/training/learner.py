"""A training of one of our agents: compiled, timed, and evaluated while it goes on."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from agents.algorithms.algorithm import Algorithm
from agents.runs.programs import (
    TrainingFunctions,
    compile_programs,
    jit_functions,
    training_functions,
)
from agents.runs.seeds import choose_at_once
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
        program: (state, params) -> state and metrics after some iterations; donates the state.
        compile_seconds: wall time of starting and compiling.
        iterations: of one call.
        seeds: trainings that the program runs at once; with more than one, arrays have a leading axis of them.
    """

    algorithm: Algorithm[Any]
    params: EnvParams
    state: Any
    program: jax.stages.Compiled
    compile_seconds: float
    seeds: int
    iterations: int

    @classmethod
    def compile(
        cls, algorithm: Algorithm[Any], params: EnvParams, seed: int, iterations: int = 0
    ) -> "Learner":
        """Start a training and compile it.

        Args:
            algorithm: what is trained.
            params: of the environment.
            seed: of the training.
            iterations: of one call; 0 takes those of a log interval.
        """
        count = iterations or algorithm.config.iterations_per_log
        functions = jit_functions(algorithm.init, partial(algorithm.iterations, count=count))
        return cls._compile(algorithm, params, functions, jax.random.key(seed), 1, count)

    @classmethod
    def compile_seeds(
        cls,
        algorithm: Algorithm[Any],
        params: EnvParams,
        seed: int,
        seeds: int,
        at_once: int | None = None,
    ) -> "Learner":
        """Start the trainings of `seeds` seeds, as `python -m agents train` does, and compile them.

        Args:
            algorithm: what is trained.
            params: of the environment.
            seed: the first one.
            seeds: their number.
            at_once: how many are trained side by side; None chooses by the device.
        """
        functions = training_functions(algorithm, at_once=at_once or choose_at_once(seeds))
        keys = jnp.stack([jax.random.key(seed + index) for index in range(seeds)])
        count = algorithm.config.iterations_per_log
        return cls._compile(algorithm, params, functions, keys, seeds, count)

    @classmethod
    def _compile(
        cls,
        algorithm: Algorithm[Any],
        params: EnvParams,
        functions: TrainingFunctions,
        keys: jax.Array,
        seeds: int,
        iterations: int,
    ) -> "Learner":
        """Compile what the other two describe, and start it."""
        with compiled_anew():
            begin = time.perf_counter()
            arguments = (keys, params, None)
            programs = compile_programs(functions, arguments, params)
            state = jax.block_until_ready(programs.init(*arguments))
            seconds = time.perf_counter() - begin
        return cls(algorithm, params, state, programs.chunk, seconds, seeds, iterations)

    def restart(self, seed: int) -> None:
        """Start another training with the same program."""
        self.state = jax.jit(self.algorithm.init)(jax.random.key(seed), self.params)

    @property
    def steps_per_call(self) -> int:
        """Environment steps of one call of the program, of all seeds together."""
        config = self.algorithm.config
        return self.seeds * self.iterations * config.steps_per_iteration

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

    def attempts(self, target: Target, seeds: Iterable[int], limit: float) -> list[Attempt]:
        """An attempt of each seed, one after the other."""
        attempts = []
        for seed in seeds:
            self.restart(seed)
            attempts.append(self.attempt(target, limit))
        return attempts
