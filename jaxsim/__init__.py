"""jaxsim: an LLM-powered user simulator for recommender systems, jitted and vmapped.

dataset = jaxsim.load_dataset("ml-100k")
env, params = jaxsim.make(dataset)
obs, state = env.reset(key, params)
obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
"""

from jaxsim.auto_reset import reset_where
from jaxsim.catalogue import Catalogue, ItemFeatures, Pairs, PairTables
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
from jaxsim.devices import (
    SplitTable,
    make_mesh,
    over_sessions,
    place_params,
    split_sessions,
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
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.explanation.explain import Explanation, explain
from jaxsim.factory import Repeats, Users, make
from jaxsim.gymnasium_adapter import GymnasiumEnv, GymnasiumVectorEnv
from jaxsim.registration import NAMED_DATASETS, environment_id, register_environments
from jaxsim.sasrec import KeyValues, SASRec
from jaxsim.similarity import COSINE_UNIT, NO_COSINE
from jaxsim.types import (
    EnvParams,
    EnvState,
    Histories,
    Observation,
    ObservationSpace,
    Policy,
    Prefix,
)

register_environments()

__all__ = [
    "ARRAY_SCHEMA",
    "COSINE_UNIT",
    "FORMAT_VERSION",
    "NAMED_DATASETS",
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
    "Explanation",
    "GymnasiumEnv",
    "GymnasiumVectorEnv",
    "Histories",
    "InputError",
    "ItemFeatures",
    "KeyValues",
    "Observation",
    "ObservationSpace",
    "PairTables",
    "Pairs",
    "Policy",
    "Prefix",
    "Reasons",
    "Repeats",
    "Response",
    "SASRec",
    "Semantics",
    "SplitTable",
    "UserSimulator",
    "Users",
    "add_evidence",
    "cache_dir",
    "dataset_path",
    "environment_id",
    "explain",
    "gather_evidence",
    "load_dataset",
    "majority_probability",
    "make",
    "make_mesh",
    "over_sessions",
    "place_params",
    "reset_where",
    "sha256_of",
    "split_sessions",
]
