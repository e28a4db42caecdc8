"""jaxsim: an LLM-powered user simulator for recommender systems, jitted and vmapped.

dataset = jaxsim.load_dataset("ml-100k")
env, params = jaxsim.make(dataset)
obs, state = env.reset(key, params)
obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
"""

from jaxsim.catalogue import Catalogue
from jaxsim.cli import InputError
from jaxsim.dataset import (
    ARRAY_SCHEMA,
    FORMAT_VERSION,
    Dataset,
    cache_dir,
    dataset_path,
    load_dataset,
    sha256_of,
)
from jaxsim.ensemble import Decision, Evidence, Reasons, Response, add_evidence, gather_evidence
from jaxsim.environment import (
    EnvParams,
    EnvState,
    Histories,
    Observation,
    ObservationSpace,
    Policy,
    UserSimulator,
)
from jaxsim.factory import make

__all__ = [
    "ARRAY_SCHEMA",
    "FORMAT_VERSION",
    "Catalogue",
    "Dataset",
    "Decision",
    "EnvParams",
    "EnvState",
    "Evidence",
    "Histories",
    "InputError",
    "Observation",
    "ObservationSpace",
    "Policy",
    "Reasons",
    "Response",
    "UserSimulator",
    "add_evidence",
    "cache_dir",
    "dataset_path",
    "gather_evidence",
    "load_dataset",
    "make",
    "sha256_of",
]
