"""jaxsim: an LLM-powered user simulator for recommender systems, jitted and vmapped.

dataset = jaxsim.load_dataset("ml-100k")
env, params = jaxsim.make(dataset)
obs, state = env.reset(key, params)
obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
"""

from importlib import metadata

from jaxsim.dataset import Dataset, load_dataset
from jaxsim.devices import make_mesh, over_sessions, place_params, split_sessions
from jaxsim.ensemble import (
    Decision,
    Evidence,
    Reasons,
    Response,
    Semantics,
    add_evidence,
    gather_evidence,
)
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.explanation.explain import explain
from jaxsim.explanation.taste import TasteExplanation
from jaxsim.explanation.votes import Explanation
from jaxsim.factory import Repeats, TasteKind, Users, make
from jaxsim.flat_observation import FlatObservation
from jaxsim.gymnasium_adapter import GymnasiumEnv, GymnasiumVectorEnv
from jaxsim.own_users import UserModel
from jaxsim.registration import environment_id, register_environments
from jaxsim.sasrec import SASRec
from jaxsim.similarity import COSINE_UNIT, NO_COSINE
from jaxsim.slates import SlateSimulator
from jaxsim.types import EnvParams, EnvState, Observation

try:
    __version__ = metadata.version("jaxsim-recsys")
except metadata.PackageNotFoundError:  # the source is on the path, but pip has not installed it
    __version__ = "0+not.installed"

register_environments()

__all__ = [
    "COSINE_UNIT",
    "NO_COSINE",
    "Dataset",
    "Decision",
    "EnvParams",
    "EnvState",
    "Evidence",
    "Explanation",
    "FlatObservation",
    "GymnasiumEnv",
    "GymnasiumVectorEnv",
    "InputError",
    "Observation",
    "Reasons",
    "Repeats",
    "Response",
    "SASRec",
    "Semantics",
    "SlateSimulator",
    "TasteExplanation",
    "TasteKind",
    "UserModel",
    "UserSimulator",
    "Users",
    "__version__",
    "add_evidence",
    "environment_id",
    "explain",
    "gather_evidence",
    "load_dataset",
    "make",
    "make_mesh",
    "over_sessions",
    "place_params",
    "split_sessions",
]
