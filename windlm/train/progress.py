"""Progress of a run on standard error: a bar in a terminal, elsewhere (in a log) one line per round."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar whose unit is a response: each counts once when sampled, once when judged, and once per epoch.

    Beside it are the round, what is being done with how many tokens per second, and the last round's metrics. Other
    processes are taken to be as far as the one that shows the bar.

    Parameters
    ----------
    rounds : int
    per_round : int
        Units of a round on this process.
    done : int
        Rounds that are finished.
    show : bool
    """

    def __init__(self, rounds: int, per_round: int, done: int, show: bool) -> None:
        self.rounds, self.per_round, self.show = rounds, per_round, show
        hidden = not (show and sys.stderr.isatty())
        self.bar = tqdm(total=rounds * per_round, initial=done * per_round, unit=" responses", disable=hidden)
        self.done = self.expected = done * per_round
        self.activity, self.tokens, self.metrics = "", 0, ""
        self.since = self.last = time.perf_counter()

    def round(self, number: int) -> None:
        """Begin a round."""
        self.expected = (number - 1) * self.per_round
        self.bar.set_description(f"round {number}/{self.rounds}", refresh=False)
        self.expect(0)

    def expect(self, count: int) -> None:
        """Begin work of so many units; what was expected before is done."""
        self._to(self.expected)
        self.expected += count

    def add(self, activity: str, responses: int, tokens: int) -> None:
        """Count responses and their tokens; at most as many responses as are expected."""
        now = time.perf_counter()
        if activity != self.activity:
            self.activity, self.tokens, self.since = activity, 0, self.last
        self.tokens += tokens
        speed = f", {self.tokens / (now - self.since):,.0f} tokens/s" if now > self.since else ""
        self.bar.set_postfix_str(f"{activity}{speed}{self.metrics}", refresh=False)
        self.last = now
        self._to(min(self.done + responses, self.expected))

    def update(self, row: Mapping[str, Any]) -> None:
        """Show the metrics of a round."""
        numbers = [
            f"{label} {row[name]:.3g}"
            for label, name in (("reward", "reward"), ("win rate", "win_rate_reference"), ("KL", "kl"))
            if name in row
        ]
        self.metrics = "".join(f", {number}" for number in numbers)
        if self.show and self.bar.disable:
            seconds = sum(value for name, value in row.items() if name.startswith("seconds"))
            numbers += [f"{row['tokens'] / seconds:.0f} tokens/s"] if seconds > 0 else []
            print(f"round {row['round']}/{self.rounds}: {', '.join(numbers)}, {seconds:.1f} s", file=sys.stderr)

    def write(self, text: str) -> None:
        """Print a text above the bar."""
        if self.show:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Show that what was expected is done."""
        self.expect(0)
        self.bar.close()

    def _to(self, count: int) -> None:
        self.bar.update(count - self.done)
        self.done = count
