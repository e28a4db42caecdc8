"""jaxsim: an LLM-powered user simulator for recommender systems, jitted and vmapped.

dataset = jaxsim.load_dataset("ml-100k")
env, params = jaxsim.make(dataset)
obs, state = env.reset(key, params)
obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
"""

from jaxsim.catalogue import COSINE_UNIT, NO_COSINE, Catalogue
from jaxsim.cli import InputError
from jaxsim.dataset import (
    ARRAY_SCHEMA,
    FORMAT_VERSION,
    TEST,
    TRAIN,
    VALIDATION,
    Dataset,
    cache_dir,
    dataset_path,
    load_dataset,
    sha256_of,
)
from jaxsim.ensemble import (
    Decision,
    Evidence,
    Reasons,
    Response,
    Semantics,
    add_evidence,
    gather_evidence,
    majority_probability,
)
from jaxsim.environment import (
    EnvParams,
    EnvState,
    Histories,
    Observation,
    ObservationSpace,
    Policy,
    UserSimulator,
)
from jaxsim.factory import Repeats, Users, make
from jaxsim.sasrec import SASRec

__all__ = [
    "ARRAY_SCHEMA",
    "COSINE_UNIT",
    "FORMAT_VERSION",
    "NO_COSINE",
    "TEST",
    "TRAIN",
    "VALIDATION",
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
    "Repeats",
    "Response",
    "SASRec",
    "Semantics",
    "UserSimulator",
    "Users",
    "add_evidence",
    "cache_dir",
    "dataset_path",
    "gather_evidence",
    "load_dataset",
    "majority_probability",
    "make",
    "sha256_of",
]
