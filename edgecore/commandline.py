"""
The command line of edgecore: every command with its flags and an example.

All of it is built by every edgecore, a running one included, so what the commands do is in modules of their own.
"""

import argparse
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from componentbase import cli
from componentbase.release import VERSION
from devicetwin.broker import usercommand
from edgecore.settings import CONFIG_NAME, PROG, QUIC_PORT, TransportMode
from edgehub import swarmcommand

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def new_parser() -> argparse.ArgumentParser:
    """The parser of all that edgecore can be asked; `command` is the command's name."""
    parser = cli.new_parser(
        PROG,
        "The agent on an edge node: keeps its part of Kubernetes here, serves it locally, twins its devices.",
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore\n"
        "edgecore run --data-dir /var/lib/edgecore",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    added = [
        _add_run(commands),
        _add_join(commands),
        _add_status(commands),
        _add_resync(commands),
        _add_renew(commands),
        _add_rotate(commands),
        _add_purge(commands),
        _add_history(commands),
        _add_config(commands),
    ]
    users = usercommand.add_parser(commands)
    swarm = swarmcommand.add_parser(commands)
    for each in users:
        _add_data_dir(each)
    for each in (*added, swarm, *users):
        cli.add_log_flags(each)
    return parser


def _add_run(commands: Commands) -> argparse.ArgumentParser:
    run = cli.add_command(
        commands,
        "run",
        "Run the agent until it is stopped.",
        "edgecore run --data-dir /var/lib/edgecore --mqtt embedded",
    )
    _add_data_dir(run)
    run.add_argument("--config", type=Path, metavar="FILE", help=f"DIR/{CONFIG_NAME} by default")
    modes = [mode.value for mode in TransportMode]
    run.add_argument("--transport", choices=modes, help="what carries the link; websocket by default")
    run.add_argument("--quic-port", type=int, metavar="PORT", help=f"the hub's for QUIC; {QUIC_PORT} by default")
    run.add_argument("--mqtt", metavar="embedded|URL", help="the MQTT broker: embedded, or mqtt[s]://[USER@]HOST:PORT")
    run.add_argument("--mqtt-listen", type=cli.endpoint, metavar="HOST:PORT", help="where the embedded broker listens")
    run.add_argument("--api", type=cli.endpoint, metavar="HOST:PORT", help="where the local API listens")
    _add_secrets_key(run)
    run.add_argument("--api-tls", action="store_const", const=True, help="serve it with TLS, to tokens of the cluster")
    return run


def _add_join(commands: Commands) -> argparse.ArgumentParser:
    join = cli.add_command(
        commands,
        "join",
        "Make this machine a node: get a certificate and write the configuration.",
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore --check\n"
        "edgecore join --cloud hub.example:10002 --token TOKEN --node edge-1 --data-dir /var/lib/edgecore",
    )
    _add_data_dir(join)
    join.add_argument(
        "--cloud", type=cli.endpoint_with(10002), required=True, metavar="HOST:PORT", help="cloudcore's join endpoint"
    )
    token = join.add_mutually_exclusive_group(required=True)
    token.add_argument("--token", help="from `cloudcore token create`; - reads it from standard input")
    token.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the token's; removed once the machine has joined"
    )
    join.add_argument("--node", required=True, metavar="NAME", help="the node's name in Kubernetes")
    join.add_argument("--force", action="store_true", help="take the place of what joined in this directory before")
    join.add_argument("--check", action="store_true", help="say what would work and what would not, and change nothing")
    return join


def _add_status(commands: Commands) -> argparse.ArgumentParser:
    status = cli.add_command(
        commands, "status", "Say in a few lines how things stand.", "edgecore status --data-dir /var/lib/edgecore"
    )
    _add_data_dir(status)
    cli.add_output_flag(status)
    return status


def _add_resync(commands: Commands) -> argparse.ArgumentParser:
    resync = cli.add_command(
        commands,
        "resync",
        "Have everything this node holds compared with what it should hold. Happens by itself; for peace of mind.",
        "edgecore resync --data-dir /var/lib/edgecore",
    )
    _add_data_dir(resync)
    return resync


def _add_renew(commands: Commands) -> argparse.ArgumentParser:
    renew = cli.add_command(
        commands,
        "renew",
        "Get this node's next certificate now. Happens by itself in time, and when the hub's CA is replaced.",
        "edgecore renew --data-dir /var/lib/edgecore",
    )
    _add_data_dir(renew)
    return renew


def _add_rotate(commands: Commands) -> argparse.ArgumentParser:
    rotate = cli.add_command(
        commands,
        "rotate-secrets-key",
        "Encrypt this node's Secrets with a new key, while edgecore is stopped, and forget the old one.",
        "systemctl stop edgecore\nedgecore rotate-secrets-key --data-dir /var/lib/edgecore\nsystemctl start edgecore",
    )
    _add_data_dir(rotate)
    _add_secrets_key(rotate)
    return rotate


def _add_purge(commands: Commands) -> argparse.ArgumentParser:
    purge = cli.add_command(
        commands,
        "purge",
        "Remove all that edgecore made here: key and certificates, Secrets, what is held and what waits to go up.",
        "edgecore purge --data-dir /var/lib/edgecore --dry-run\nedgecore purge --data-dir /var/lib/edgecore",
    )
    _add_data_dir(purge)
    _add_secrets_key(purge)
    purge.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    return purge


def _add_history(commands: Commands) -> argparse.ArgumentParser:
    device = cli.add_command(
        commands,
        "device",
        "Look at one device.",
        "edgecore device history thermo-1 temperature --since 6h --data-dir /var/lib/edgecore",
    )
    history = cli.add_command(
        device.add_subparsers(dest="device_command", required=True, metavar="COMMAND"),
        "history",
        "Plot what a property was in the last hours, from this node's own memory, whether edgecore runs or not.",
        "edgecore device history thermo-1 temperature --since 6h --data-dir /var/lib/edgecore",
    )
    history.add_argument("name", metavar="NAME", help="the Device")
    history.add_argument("property", metavar="PROPERTY", help="one of its properties")
    history.add_argument("--namespace", "-n", default="default", metavar="NAMESPACE", help="of the Device; default")
    history.add_argument(
        "--since", type=cli.duration, default=timedelta(hours=3), metavar="TIME", help="30m, 6h, 2d; 3h by default"
    )
    cli.add_output_flag(history)
    _add_data_dir(history)
    return history


def _add_config(commands: Commands) -> argparse.ArgumentParser:
    show = cli.add_command(
        commands,
        "config",
        "Print the configuration in force, or every default.",
        "edgecore config > edgecore.yaml\nedgecore config --data-dir /var/lib/edgecore",
    )
    show.add_argument("--data-dir", type=Path, metavar="DIR", help="print DIR's configuration rather than the defaults")
    return show


def _add_secrets_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--secrets-key", type=Path, metavar="FILE", help="the key that Secrets are encrypted with on this node's disk"
    )


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where this node keeps its state")
