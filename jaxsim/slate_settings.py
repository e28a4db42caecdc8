"""The settings that an environment of slates takes over from the environment of single items."""

from jaxsim.environment import UserSimulator
from jaxsim.rewards import Reward


class OfSingleItems:
    """Properties of `jaxsim.SlateSimulator`.

    Attributes:
        single: the environment of single items.
    """

    single: UserSimulator

    @property
    def num_items(self) -> int:
        """N, the size of the catalogue."""
        return self.single.num_items

    @property
    def num_users(self) -> int:
        """U."""
        return self.single.num_users

    @property
    def num_actions(self) -> int:
        """N, the choices for each place."""
        return self.single.num_items

    @property
    def repeats(self) -> str:
        """Whether items of the window and items that were shown are masked ("mask") or not ("allow")."""
        return self.single.repeats

    @property
    def semantics(self) -> str:
        """How the user decides, "calibrated" or "soft"."""
        return self.single.semantics

    @property
    def departure(self) -> str:
        """Whether the probability of leaving is "constant" or "fitted"."""
        return self.single.departure

    @property
    def visits(self) -> bool:
        """Whether users return for further sessions."""
        return self.single.visits

    @property
    def horizon_days(self) -> float | None:
        """Days of a life with visits; None without."""
        return self.single.horizon_days

    @property
    def reward(self) -> Reward:
        """What a response earns, always "like"."""
        return self.single.reward

    @property
    def end_depends_on_items(self) -> bool:
        """Whether the step at which an episode ends may depend on what is shown."""
        return self.single.end_depends_on_items

    @property
    def draws_taste(self) -> bool:
        """Whether each session draws the taste of its user, and so needs a key to begin."""
        return self.single.draws_taste

    @property
    def window(self) -> int:
        """W, the number of positions in an observation."""
        return self.single.window
