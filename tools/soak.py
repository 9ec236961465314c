"""The twelve tests that a rig may rely on: limits beside what was measured, and exit code 1 where one is violated.

    python tools/soak.py --list
    python tools/soak.py --test 5 --minutes 10                 # any of them by number
    python tools/soak.py --test 10 --hours 8                   # 8 h of load A, then 1 h of B and 1 h of C
    python tools/soak.py --test 10 --hours 8 --resume          # goes on where it was interrupted

At most 5 GB of disk, in --work; without --record nearly none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from soaks import state as states
from soaks.asked import WORK, Asked, SoakTest
from soaks.report import Report
from soaks.tests import TESTS

REPORTS = Path(__file__).parents[1] / "export" / "reports"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the twelve")
    parser.add_argument("--test", type=int, choices=sorted(TESTS), metavar="N")
    parser.add_argument("--minutes", type=float, help="how long; default: as --list says")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--out", type=Path, help="the report; default: soak-N.json in --work")
    parser.add_argument("--work", type=Path, default=WORK, help="state and recordings, at most 5 GB")
    parser.add_argument("--resume", action="store_true", help="go on where the last one was interrupted")
    parser.add_argument("--model", default="", help="default: an untrained filter that keeps up, by load")
    parser.add_argument(
        "--shape", type=int, nargs=2, default=(0, 0), metavar=("Y", "X"), help="default: that of the load"
    )
    parser.add_argument("--loads", default="", help="of test 10, as A,B,C")
    parser.add_argument(
        "--record", action="store_true", help="record raw frames meanwhile, in segments that are checked"
    )
    parser.add_argument("--speed", type=float, default=1.0, help="makes the phases of a test shorter; the limits stay")
    parser.add_argument("--seed", type=int, default=0, help="of random schedules")
    args = parser.parse_args()
    console = Console(width=150)
    if args.list or args.test is None:
        listing(console)
        return
    sys.exit(0 if soak(console, TESTS[args.test], asked_of(args), args.out, resume=args.resume) else 1)


def listing(console: Console) -> None:
    table = Table("test", "what", "when", "minutes")
    for each in TESTS.values():
        table.add_row(str(each.number), each.title, each.when, f"{each.minutes:g}")
    console.print(table)


def asked_of(args: argparse.Namespace) -> Asked:
    minutes = 60 * args.hours if args.hours else args.minutes or TESTS[args.test].minutes
    loads = tuple(name for name in args.loads.upper().split(",") if name)
    shape = (args.shape[0], args.shape[1])
    return Asked(60 * minutes, args.work, args.model, shape, loads, args.record, args.speed, args.seed)


def soak(console: Console, test: SoakTest, asked: Asked, out: Path | None, *, resume: bool = False) -> bool:
    """Run one test, or go on with it; True when every limit was kept."""
    key = {"test": test.number, "model": asked.model, "shape": list(asked.shape), "loads": list(asked.loads)}
    path = asked.work / f"soak-{test.number}.state.json"
    try:
        state = (states.resume if resume else states.begin)(path, key)
        report = Report(test=test.number, title=test.title, seconds=0.0, rows=())
        test.run(asked, state)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with --resume (kept in {path})")
        return False
    except Exception as error:  # whatever broke is a verdict too, and says where to look
        console.print(f"[red]broken off[/red]: {type(error).__name__}: {error}", highlight=False)
        console.print(f"what was measured before is in {path}; go on with --resume")
        return False
    rows = tuple(test.judge(asked, state.parts))
    report = report.model_copy(
        update={"rows": rows, "seconds": state.elapsed_s, "resumed": state.life, "asked": key | {"speed": asked.speed}}
    )
    report.show(console)
    report.write(out or asked.work / f"soak-{test.number}.json")
    return report.met


if __name__ == "__main__":
    main()
