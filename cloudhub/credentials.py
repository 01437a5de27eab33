"""
The apiserver as a command meets it: a client for the kubeconfig that a person chose, and refusals told to that person.
"""

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from apimachinery.errors import ApiError, Unauthorized
from componentbase import cli

if TYPE_CHECKING:  # the client is 20 MB, and a supervisor of workers has this module for its flag only
    from cloudhub.apiclient import ApiClient
    from cloudhub.vault import Objects


def add_flag(parser: argparse.ArgumentParser) -> None:
    """--kubeconfig, for client()."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="$KUBECONFIG, a pod's service account or ~/.kube/config by default",
    )


def client(kubeconfig: Path | None) -> "ApiClient":
    """For the file that was named, or for what is found without. Raises CommandError."""
    from cloudhub.apiclient import ApiClient, KubeconfigError

    try:
        return ApiClient.from_kubeconfig(kubeconfig)
    except KubeconfigError as exc:
        advice = "; name one with --kubeconfig" if kubeconfig is None else ""
        raise cli.CommandError(f"{exc}{advice}") from exc


def run(args: argparse.Namespace, act: Callable[[argparse.Namespace, "Objects"], Awaitable[None]]) -> int:
    """
    A command of cloudcore that speaks to the apiserver and to no hub, for args with add_flag()'s; its exit code.

    act: may raise ApiError and CommandError.
    """
    # Here and not at the top: a running cloudcore has the commands' modules for their flags only.
    from cloudhub.apiclient import ObjectsByName

    async def command() -> None:
        async with client(args.kubeconfig) as speaking:
            try:
                await act(args, ObjectsByName(speaking))
            except Unauthorized as exc:
                raise cli.CommandError(refusal(exc)) from exc
            except ApiError as exc:
                raise cli.CommandError(str(exc)) from exc

    return cli.run(command(), prog="cloudcore")


def refusal(exc: ApiError) -> str:
    """What the apiserver said, for the person who chose the kubeconfig."""
    from cloudhub.apiclient import ApiUnreachable

    if isinstance(exc, Unauthorized):
        return (
            f"the apiserver does not accept the credentials in the kubeconfig ({exc}); name another with --kubeconfig"
        )
    return str(exc) if isinstance(exc, ApiUnreachable) else f"the apiserver answers: {exc}"
