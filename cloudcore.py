"""
cloudcore: the hub beside Kubernetes. One of the two composition roots: a command line in, a process out.

`run` is one hub process (cloudhub/replica.py joins its parts), or a supervisor of several. Nothing imports this module.
It imports what its commands need where they need it: a supervisor lives as long as its workers, and the
apiserver's client alone is 20 MB.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from cloudhub import cacommand, credentials, nodecommand, tokencommand, worker
from cloudhub.settings import KUBELET_SIGNER, SOCKET_NAME, CloudConfig, SignedBy, load
from cloudhub.statustext import told
from componentbase import cli, config, statusz
from componentbase.endpoints import Endpoint, why_not_listening
from componentbase.files import lock_dir, open_private_dir
from componentbase.release import VERSION
from componentbase.reservations import reserved

PROG = "cloudcore"
QUIC_WORKER = 1

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main() -> None:
    """The console script."""
    args = _parser().parse_args()
    number = getattr(args, "worker", None)
    cli.configure_logs(args, {"worker": number} if number else None)
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "crds": _crds,
        "rbac": _rbac,
        "token": tokencommand.run,
        "ca": cacommand.run,
        "node": nodecommand.run,
        "status": _status,
        "resync": _resync,
        "config": _config,
    }
    sys.exit(commands[args.command](args))


def _parser() -> argparse.ArgumentParser:
    parser = cli.new_parser(
        PROG,
        "The hub beside Kubernetes: watches an apiserver, pushes to edge nodes, writes their reports back.",
        "cloudcore crds | kubectl apply -f -\ncloudcore run --kubeconfig kubeconfig --data-dir /var/lib/cloudcore",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    added = [_add_run(commands), _add_crds(commands), _add_rbac(commands)]
    for each in (tokencommand, cacommand, nodecommand):
        each.add_parser(commands)
    added += [_add_status(commands), _add_resync(commands), _add_config(commands)]
    for command in added:
        cli.add_log_flags(command)
    return parser


def _add_run(commands: Commands) -> argparse.ArgumentParser:
    run = cli.add_command(
        commands,
        "run",
        "Run the hub until it is stopped.",
        "cloudcore run --kubeconfig kubeconfig --data-dir /var/lib/cloudcore --listen :10000 --join-listen :10002",
    )
    credentials.add_flag(run)
    _add_data_dir(run, "for the status socket and the lock")
    _add_config_file(run, "see `cloudcore config`")
    run.add_argument("--workers", type=int, metavar="N", help="processes that share the ports; 1 by default")
    run.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # from a supervisor
    run.add_argument("--listen", type=cli.endpoint, metavar="HOST:PORT", help="the link; :10000 by default")
    run.add_argument(
        "--quic-listen",
        type=cli.endpoint_like(10001),
        metavar="HOST:PORT",
        help="the link over QUIC, usually :10001; off by default",
    )
    run.add_argument(
        "--join-listen", type=cli.endpoint_like(10002), metavar="HOST:PORT", help="the join endpoint; :10002"
    )
    run.add_argument(
        "--advertise", action="append", metavar="NAME", help="a name nodes reach this hub under; repeatable"
    )
    run.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="the signer's CA; what the cluster publishes by default"
    )
    _add_signer_flags(run)
    return run


def _add_crds(commands: Commands) -> argparse.ArgumentParser:
    return cli.add_command(
        commands,
        "crds",
        "Print the definitions of Device, DeviceModel and DeviceStatus.",
        "cloudcore crds | kubectl apply -f -",
    )


def _add_rbac(commands: Commands) -> argparse.ArgumentParser:
    rbac = cli.add_command(
        commands,
        "rbac",
        "Print the account of cloudcore and its rights, which are the least that it needs.",
        "cloudcore rbac | kubectl apply -f -\nkubectl create token cloudcore --namespace fairlead-system",
    )
    _add_config_file(rbac, "of this configuration: placement, interest.enabled")
    rbac.add_argument("--no-interest", action="store_true", help="without interest on demand and requests of nodes")
    rbac.add_argument("--nodes", type=_names, default=(), metavar="NAME,...", help="requests of these nodes only")
    rbac.add_argument(
        "--namespaces", type=_names, default=(), metavar="NAME,...", help="requests of pods in these namespaces only"
    )
    _add_signer_flags(rbac)
    return rbac


def _add_status(commands: Commands) -> argparse.ArgumentParser:
    status = cli.add_command(
        commands, "status", "Say in a few lines how things stand.", "cloudcore status --data-dir /var/lib/cloudcore"
    )
    _add_data_dir(status, _SAME_DIR)
    cli.add_output_flag(status)
    return status


def _add_resync(commands: Commands) -> argparse.ArgumentParser:
    resync = cli.add_command(
        commands,
        "resync",
        "Compare everything a node holds with what it should. Happens by itself; for peace of mind.",
        "cloudcore resync edge-1 --data-dir /var/lib/cloudcore",
    )
    resync.add_argument("node", metavar="NODE", help="the node's name")
    _add_data_dir(resync, _SAME_DIR)
    return resync


def _add_config(commands: Commands) -> argparse.ArgumentParser:
    show = cli.add_command(
        commands,
        "config",
        "Print a configuration, every default with its meaning.",
        "cloudcore config > cloudcore.yaml",
    )
    _add_config_file(show, "print this one completed, rather than the defaults")
    return show


_SAME_DIR = "the one given to `cloudcore run`"


def _add_data_dir(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help=meaning)


def _add_config_file(parser: argparse.ArgumentParser, meaning: str) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=meaning)


def _add_signer_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signer",
        choices=[each.value for each in SignedBy],
        help="whose CA signs nodes: fairlead, its own, by default; kubernetes by CertificateSigningRequests",
    )
    parser.add_argument("--signer-name", metavar="NAME", help=f"of the requests; {KUBELET_SIGNER} by default")
    parser.add_argument(
        "--approve",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether cloudcore approves requests of nodes that it has checked, which it does by default, or you do",
    )


# ---- crds, rbac, config


def _crds(_: argparse.Namespace) -> int:
    from cloudhub import crds

    return cli.guard(PROG, lambda: print(crds.text(), end=""))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) for name in names):
        raise argparse.ArgumentTypeError("write NAME,NAME with names as Kubernetes has them")
    return names


def _rbac(args: argparse.Namespace) -> int:
    from cloudhub import rbac

    def command() -> None:
        settings = load(args.config)
        placed = [each for rule in settings.placement for each in (rule.resource, rule.referrer) if each]
        interest = settings.interest.enabled and not args.no_interest
        if not interest and (args.nodes or args.namespaces):
            raise cli.CommandError("--nodes and --namespaces are about requests of nodes, which need interest")
        join = config.override(
            settings, {"join.signer": args.signer, "join.signer_name": args.signer_name, "join.approve": args.approve}
        ).join
        signer = join.signer_name if join.signer is SignedBy.KUBERNETES else ""
        wanted = rbac.Wanted(interest, placed, args.nodes, args.namespaces, signer, join.approve)
        print(rbac.text(wanted), end="")

    return cli.guard(PROG, command)


def _config(args: argparse.Namespace) -> int:
    def command() -> None:
        print(config.dump(load(args.config)), end="")

    return cli.guard(PROG, command)


# ---- run


def _run(args: argparse.Namespace) -> int:
    def command() -> int:
        settings = config.override(
            load(args.config),
            {
                "workers": args.workers,
                "kubeconfig": args.kubeconfig,
                "link.listen": args.listen,
                "link.quic_listen": args.quic_listen,
                "join.listen": args.join_listen,
                "join.signer": args.signer,
                "join.signer_name": args.signer_name,
                "join.approve": args.approve,
                "join.client_ca": args.client_ca,
                "join.advertise": None if args.advertise is None else tuple(args.advertise),
            },
        )
        if args.worker:
            return _hub(_of_worker(settings, args.worker), worker.data_dir(args.data_dir, args.worker), args.worker)
        return _hub(settings, args.data_dir) if settings.workers == 1 else _supervise(settings, args.data_dir)

    return cli.guard(PROG, command)


def _of_worker(settings: CloudConfig, number: int) -> CloudConfig:
    """
    What is left to one of several workers.

    A packet of QUIC names its connection, which the kernel does not look at when it chooses among processes that share
    a port: whoever moved to another address would come to another worker. So one of them has all of QUIC.
    """
    link = settings.link if number == QUIC_WORKER else replace(settings.link, quic_listen=None)
    return replace(settings, metrics=None, link=link)


def _hub(settings: CloudConfig, data_dir: Path, number: int = 0) -> int:
    """One hub process, a worker where it has a number."""
    from cloudhub.replica import Replica

    async def command() -> None:
        open_private_dir(data_dir)
        with lock_dir(data_dir):
            async with credentials.client(settings.kubeconfig) as client:
                if not number:
                    await Replica(settings, client, data_dir).run()
                    return
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(worker.end_with_supervisor(), name="supervisor")
                    replica = Replica(settings, client, data_dir, worker=number, serving=worker.say_serving)
                    tasks.create_task(replica.run(), name="replica")

    return cli.run(command(), prog=PROG, loop_factory=_loop_factory())


def _supervise(settings: CloudConfig, data_dir: Path) -> int:
    """Several of them. A worker is started as this process was, and told its number and what it shares."""
    from cloudhub.supervisor import Supervisor

    open_private_dir(data_dir)
    with (
        lock_dir(data_dir),
        _reserved(settings.link.listen, "the link", "--listen") as link,
        _reserved(settings.join.listen, "the join endpoint", "--join-listen") as join,
    ):
        shared = ["--listen", str(link), "--join-listen", str(join), "--worker"]
        started = [sys.executable, *sys.orig_argv[1:], *shared]
        return cli.run(Supervisor(settings, data_dir, started).run(), prog=PROG)


@contextlib.contextmanager
def _reserved(endpoint: Endpoint, what: str, flag: str) -> Iterator[Endpoint]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(reserved(endpoint))
        except OSError as exc:
            why = why_not_listening(endpoint.host, endpoint.port, exc)
            raise cli.CommandError(f"{what}: {why}; choose another with {flag}") from exc
        yield found


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: a third less CPU per pushed frame with TLS, and a tenth of the memory per node."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


# ---- status


def _resync(args: argparse.Namespace) -> int:
    def command() -> None:
        query = urllib.parse.urlencode({"node": args.node})
        answer = statusz.ask(args.data_dir / SOCKET_NAME, PROG, f"POST /resync?{query}")
        when = "now" if answer["connected"] else "as soon as it connects"
        print(f"what {args.node} holds is compared {when}")

    return cli.guard(PROG, command)


def _status(args: argparse.Namespace) -> int:
    def command() -> None:
        facts = statusz.ask(args.data_dir / SOCKET_NAME, PROG)
        print(json.dumps(facts, indent=2) if args.output == "json" else "\n".join(told(facts)))

    return cli.guard(PROG, command)


if __name__ == "__main__":
    main()
