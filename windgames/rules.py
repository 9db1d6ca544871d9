"""The rules by name, ``windgames.rules.wind`` and so on; they are defined in `windgames.updates`."""

from .updates import extragradient, inpo, iterative_bon, nash_md, omwu, optimistic, sppo, wind

__all__ = ["extragradient", "inpo", "iterative_bon", "nash_md", "omwu", "optimistic", "sppo", "wind"]
