"""The command line of the demo: `python -m demo`, or `make demo`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from componentbase import cli
from demo.play import play

DEFAULT_DIR = Path(".demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until ctrl-c; the exit code."""
    parser = cli.new_parser(
        "demo",
        "Runs the whole system in this terminal: an apiserver, cloudcore, one edge node and two devices.\n"
        "Needs nothing else installed. Ctrl-C stops it; the next start goes on where it was.",
        "python -m demo --data-dir /tmp/demo",
    )
    parser.add_argument(
        "--data-dir", type=Path, default=DEFAULT_DIR, metavar="DIR", help=f"where everything is kept; {DEFAULT_DIR}"
    )
    cli.add_log_flags(parser)
    args = parser.parse_args(argv)
    if args.log_level == "info":
        args.log_level = "warning"  # the demo says what it does by itself; the logs are the children's
    cli.configure_logs(args)
    return cli.run(play(args.data_dir.absolute()), prog="demo")


if __name__ == "__main__":
    sys.exit(main())
