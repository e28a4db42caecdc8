"""Types of settings that name their bounds, which `jaxsim.settings.check_settings` checks."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Gt(0), Le(1)]
Amount = Annotated[float, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
