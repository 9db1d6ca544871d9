"""The settings of each kind of judge, chosen by ``--judge.kind``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_type_hints

Precision = Literal["float32", "bfloat16", "float16"]
"""Names of the dtypes that weights can be loaded in."""


class JudgeSettings:
    """The judge that decides which response wins: ``JudgeSettings(kind, name, ...)`` gives the settings of that kind.

    Raises
    ------
    ValueError
        If there is no such kind.
    """

    kind: str
    name: Any
    pairwise: ClassVar[bool] = True
    """Whether it is asked for every pair of responses, and not for every response."""
    interaction: ClassVar[float] = 1.0
    """The constant `L` of theory 5.2 of the judge, 1 for any preference."""

    def __new__(cls, kind: str = "reward-model", *args: Any, **settings: Any) -> JudgeSettings:
        if cls is JudgeSettings:
            if kind not in KINDS:
                raise ValueError(f"kind must be one of {', '.join(KINDS)}, but it is {kind!r}.")
            cls = KINDS[kind]
        return super().__new__(cls)

    def __init__(self, kind: str = "reward-model", *args: Any, **settings: Any) -> None:
        pass  # that of the kind


@dataclass(frozen=True)
class ByReward(JudgeSettings):
    """A judge by rewards."""

    pairwise = False
    interaction = 0.5  # of a reward and of Bradley-Terry (theory 5.3)


@dataclass(frozen=True)
class RewardModelSettings(ByReward):
    """A sequence classifier as a reward model."""

    kind: Literal["reward-model"] = "reward-model"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = ""
    """Hub name or folder of the classifier."""
    preference: Literal["reward", "bradley-terry"] = "reward"
    """Win probability of the larger reward: 1 (reward), or the sigmoid of the difference (bradley-terry)."""
    scale: float = 1.0
    """Bradley-Terry temperature, in units of the reward."""
    ties: Literal["half", "weak", "strict"] = "half"
    """Win probability at equal rewards: 1/2 (half), 1 (weak) or 0 (strict)."""
    precision: Precision = "float32"
    """Precision of the weights."""
    batch_size: int = 16
    """Responses per forward pass."""
    cut: float = 0.0
    """Subtracted from the reward of a response that was cut at the maximum length."""
    label: str | None = None
    """Name or index of the label whose log-odds are the reward, if there are several."""
    truncate: bool = False
    """Whether a text that exceeds the model's context loses the beginning of its prompt; an error otherwise."""
    trust_remote_code: bool = False
    """Whether to run code that comes with the model."""

    def __post_init__(self) -> None:
        check_scale(self)


@dataclass(frozen=True)
class RewardSettings(ByReward):
    """One or several Python functions as rewards."""

    kind: Literal["reward"] = "reward"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str | tuple[str, ...] = ""
    """The function f(prompts, responses, **columns), as module:function or file.py:function; several are summed."""
    weights: tuple[float, ...] | None = None
    """Weight of each function in the sum; None for 1."""
    preference: Literal["reward", "bradley-terry"] = "reward"
    """Win probability of the larger reward: 1 (reward), or the sigmoid of the difference (bradley-terry)."""
    scale: float = 1.0
    """Bradley-Terry temperature, in units of the reward."""
    ties: Literal["half", "weak", "strict"] = "half"
    """Win probability at equal rewards: 1/2 (half), 1 (weak) or 0 (strict)."""
    cut: float = 0.0
    """Subtracted from the reward of a response that was cut at the maximum length."""

    def __post_init__(self) -> None:
        check_scale(self)
        if isinstance(self.name, list | tuple):
            object.__setattr__(self, "name", self.name[0] if len(self.name) == 1 else tuple(self.name))
        if self.weights is not None and len(self.weights) != len(self.names):
            raise ValueError(f"weights must be {len(self.names)} numbers, one for each name, but it is {self.weights}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The functions."""
        return (self.name,) if isinstance(self.name, str) else self.name


@dataclass(frozen=True)
class PairwiseSettings(JudgeSettings):
    """A Python function that compares two responses."""

    kind: Literal["pairwise"] = "pairwise"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = ""
    """The function f(prompts, first, second, **columns), as module:function or file.py:function."""


@dataclass(frozen=True)
class PairRMSettings(JudgeSettings):
    """PairRM, the pairwise reward model of the WIND paper."""

    kind: Literal["pairrm"] = "pairrm"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = "llm-blender/PairRM-hf"
    """Hub name or folder."""
    precision: Precision = "float32"
    """Precision of the weights."""
    batch_size: int = 16
    """Pairs per forward pass."""
    truncate: bool = False
    """Whether prompts over 1,224 tokens, and responses too long for the rest, lose their end; an error otherwise."""


@dataclass(frozen=True)
class PairwiseModelSettings(JudgeSettings):
    """A sequence classifier of two responses, such as ``windlm reward --kind pairwise`` fits."""

    kind: Literal["pairwise-model"] = "pairwise-model"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = ""
    """Hub name or folder of the classifier."""
    precision: Precision = "float32"
    """Precision of the weights."""
    batch_size: int = 16
    """Pairs per forward pass."""
    label: str | None = None
    """Name or index of the label that says that the first response is better, if there are several."""
    truncate: bool = False
    """Whether a text that exceeds the model's context loses its beginning; an error otherwise."""
    trust_remote_code: bool = False
    """Whether to run code that comes with the model."""


@dataclass(frozen=True)
class GeneralSettings(JudgeSettings):
    """A general preference model: embeddings of responses, which may be intransitive, at a reward model's price."""

    kind: Literal["general"] = "general"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = ""
    """Hub name or folder of the classifier whose logits are the embedding."""
    precision: Precision = "float32"
    """Precision of the weights."""
    batch_size: int = 16
    """Responses per forward pass."""
    truncate: bool = False
    """Whether a text that exceeds the model's context loses the beginning of its prompt; an error otherwise."""
    trust_remote_code: bool = False
    """Whether to run code that comes with the model."""

    pairwise = False


@dataclass(frozen=True)
class ChatSettings(JudgeSettings):
    """A chat model that compares two responses, local or behind an OpenAI-compatible server."""

    kind: Literal["chat"] = "chat"
    """Kind of judge; ``--judge.kind KIND --help`` shows the flags of another one."""
    name: str = ""
    """The model's name on the server, or hub name or folder of a local model."""
    url: str = ""
    """Base URL of the server, such as http://localhost:8000/v1; empty for a local model."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's API key."""
    max_tokens: int = 512
    """Maximum length of a reply, in tokens."""
    tries: int = 3
    """Maximum number of requests until a reply can be read."""
    max_unread: float = 0.5
    """Largest share of verdicts that cannot be read; their pairs are undecided, and counted."""
    concurrency: int = 16
    """Maximum number of requests at a time (server)."""
    precision: Precision = "float32"
    """Precision of the weights (local model)."""
    batch_size: int = 16
    """Comparisons per forward pass (local model)."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_unread <= 1:
            raise ValueError(f"max_unread must lie in [0, 1], but it is {self.max_unread}.")
        for name in ("max_tokens", "tries", "concurrency", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but it is {getattr(self, name)}.")


AnyJudge = (
    RewardModelSettings
    | RewardSettings
    | PairwiseSettings
    | PairRMSettings
    | PairwiseModelSettings
    | GeneralSettings
    | ChatSettings
)
"""The settings of any judge."""
KINDS: dict[str, type[JudgeSettings]] = {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in get_args(AnyJudge)}
"""The settings of each kind of judge."""


def check_scale(settings: Any) -> None:
    """Raise ValueError if the settings of a preference by rewards are out of range, or of the other preference."""
    if not 0 < settings.scale < math.inf:
        raise ValueError(f"scale must be positive and finite, but it is {settings.scale}.")
    unused = {"reward": ("scale", 1.0), "bradley-terry": ("ties", "half")}[settings.preference]
    if getattr(settings, unused[0]) != unused[1]:
        raise ValueError(f"preference {settings.preference} does not use {unused[0]}: leave it out.")
