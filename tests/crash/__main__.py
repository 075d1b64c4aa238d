"""All crash points and all pairs of faults: `python tests/crash`. See docs/adr/0011-crash-safety.md.

Interrupted, it goes on where it was, as long as neither the code nor the seed changes. Exit code 1 if any case ends
otherwise than without a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from cos_crash import testbed
from cos_crash.campaign import LANES, Campaign, Ledger, copy_of_tested, digest_of, parse_cases
from cos_crash.lane import Result
from cos_crash.points import Points

console = Console(highlight=False, soft_wrap=True)


def state_directory() -> Path:
    """Where unfinished campaigns are remembered."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "cos-operator" / "crash"
    path.mkdir(parents=True, exist_ok=True)
    return path


class Progress:
    """A line for each case, with what is done of what there is."""

    def __init__(self, points: Points, ledger: Ledger) -> None:
        self._points = points
        self._ledger = ledger
        self._began = time.monotonic()
        self.tally: Counter[str] = Counter()

    def note(self, result: Result) -> None:
        """A case is done."""
        self._ledger.note(result)
        said = "FAILED" if not result.ok else "not reached" if result.unreached else "ok"
        self.tally[said] += 1
        done = len(self._ledger.finished & {str(case) for case in self._points.all})
        console.print(
            f"[{time.monotonic() - self._began:7.0f} s] {done:4}/{len(self._points.all)}"
            f"  {said:11} {result.case}  ({result.seconds:.0f} s)",
            markup=False,
        )
        for problem in result.problems:
            console.print(f"             {problem}", markup=False)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python tests/crash", description=__doc__)
    parser.add_argument("--case", action="append", help="try only this one, as printed; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="chooses the pairs of faults and the order")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many cases at once")
    parser.add_argument("--minutes", type=float, help="stop after this time; go on later")
    parser.add_argument("--instance", type=int, default=testbed.INSTANCE, help="index of the testbed")
    parser.add_argument("--fresh", action="store_true", help="forget what was finished earlier")
    return parser.parse_args()


async def until_signal(campaign: Campaign) -> bool:
    """Run it, or end it in order when told to. Whether it was told to."""
    loop, running, told = asyncio.get_running_loop(), asyncio.create_task(campaign.run()), asyncio.Event()

    def end() -> None:
        told.set()
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    await asyncio.wait([running])
    if not told.is_set():
        running.result()
    return told.is_set()


def main() -> int:
    """Everything, in order."""
    given = arguments()
    chosen = parse_cases(given.case) if given.case else None
    deadline = time.monotonic() + given.minutes * 60 if given.minutes else None
    directory = Path(tempfile.mkdtemp(prefix="cos-crash-"))
    source = copy_of_tested(directory)
    ledger = Ledger()
    if chosen is None:
        path = state_directory() / f"{digest_of(source)}-{given.seed}.jsonl"
        if given.fresh:
            path.unlink(missing_ok=True)
        ledger = Ledger(path)
    console.print(f"seed {given.seed}; logs and reports in {directory}")
    if ledger.finished:
        console.print(f"{len(ledger.finished)} cases were finished earlier, by {path}")
    points = Points(given.seed, chosen, frozenset(ledger.finished))
    progress = Progress(points, ledger)
    campaign = Campaign(
        testbed.start(given.instance),
        points,
        directory,
        source,
        1 if chosen else given.lanes,
        progress.note,
        deadline,
    )
    if asyncio.run(until_signal(campaign)):
        console.print("interrupted; the same command goes on")
        return 130
    for name, reference in campaign.references.items():
        counted = ", ".join(f"{count} {stream}" for stream, count in reference.totals.items())
        console.print(f"{name} without faults: {counted}; {reference.seconds:.0f} s")
    left = {str(case) for case in points.all} - ledger.finished
    console.print(
        f"tried {len(points.all) - len(left)} of {len(points.all)} points to a good end;"
        f" now: {dict(progress.tally)}; left: {len(left)}"
    )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
