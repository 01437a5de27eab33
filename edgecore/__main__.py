"""
edgecore's console script: a command line in, a process out.

`run` is the node (edgecore/compose.py joins its parts). A command is imported when it is asked for: a running edgecore
needs none of the others, and on the edge every import costs memory for as long as the process lives.
"""

import argparse
import json
import sys
from collections.abc import Callable

from componentbase import cli, config, statusz
from componentbase.release import VERSION
from devicetwin.broker import usercommand
from edgecore.commandline import new_parser
from edgecore.settings import CONFIG_NAME, PROG, SOCKET_NAME, EdgeConfig, TransportMode, load
from edgehub import swarmcommand


def main() -> None:
    """The console script."""
    args = new_parser().parse_args()
    cli.configure_logs(args)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "join": _join,
        "status": _status,
        "resync": _resync,
        "renew": _renew,
        "rotate-secrets-key": _rotate,
        "purge": _purge,
        "device": _history,
        "mqtt": _mqtt,
        "swarm": _swarm,
        "config": _config,
    }
    sys.exit(commands[args.command](args))


# ---- run


def _run(args: argparse.Namespace) -> int:
    def prepared() -> EdgeConfig:
        if args.mqtt is not None and _has_password(args.mqtt):
            raise cli.CommandError(
                "--mqtt: a password on the command line can be read by all; write it into a file, and that into "
                f"mqtt.passwordFile of {CONFIG_NAME}"
            )
        settings = load(args.config or args.data_dir / CONFIG_NAME)
        return config.override(
            settings,
            {
                "cloud.transport": args.transport and TransportMode(args.transport),
                "cloud.quic_port": args.quic_port,
                "mqtt.broker": args.mqtt,
                "mqtt.listen": args.mqtt_listen,
                "api.listen": args.api,
                "api.tls": args.api_tls,
                "secrets.key_file": args.secrets_key and args.secrets_key.absolute(),
            },
        )

    async def run() -> None:
        from edgecore.compose import serve

        await serve(prepared(), args.data_dir)

    return cli.run(run(), prog=PROG)


def _has_password(url: str) -> bool:
    return ":" in url.partition("://")[2].rpartition("@")[0]


# ---- config, status, and what a running one is asked


def _config(args: argparse.Namespace) -> int:
    def command() -> None:
        settings = EdgeConfig() if args.data_dir is None else load(args.data_dir / CONFIG_NAME)
        print(config.dump(settings), end="")

    return cli.guard(PROG, command)


def _status(args: argparse.Namespace) -> int:
    from edgecore.statustext import told

    def command() -> None:
        facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG)
        print(json.dumps(facts, indent=2) if args.output == "json" else "\n".join(told(facts)))

    return cli.guard(PROG, command)


def _resync(args: argparse.Namespace) -> int:
    def command() -> None:
        answer = statusz.ask(args.data_dir / SOCKET_NAME, PROG, "POST /resync")
        print(f"what this node holds is compared {'now' if answer['connected'] else 'as soon as the hub is there'}")

    return cli.guard(PROG, command)


# ---- commands that are elsewhere


def _join(args: argparse.Namespace) -> int:
    from edgecore import joincommand

    return joincommand.run(args)


def _renew(args: argparse.Namespace) -> int:
    from edgecore import renewcommand

    return renewcommand.run(args)


def _rotate(args: argparse.Namespace) -> int:
    from edgecore import rotatecommand

    return rotatecommand.run(args)


def _purge(args: argparse.Namespace) -> int:
    from edgecore import purgecommand

    return purgecommand.run(args)


def _history(args: argparse.Namespace) -> int:
    from edgecore import historycommand

    return historycommand.run(args)


def _mqtt(args: argparse.Namespace) -> int:
    return cli.guard(PROG, lambda: usercommand.run(args, load(args.data_dir / CONFIG_NAME).mqtt.users))


def _swarm(args: argparse.Namespace) -> int:
    from metamanager.intake import intake

    return cli.guard(PROG, lambda: swarmcommand.run(args, intake, f"swarm/{VERSION}"))


if __name__ == "__main__":
    main()
