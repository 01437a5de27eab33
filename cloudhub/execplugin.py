"""
Bearer tokens from a kubeconfig's exec plugin, as cloud providers and OIDC logins hand them out.

A plugin is a command that prints an ExecCredential (kubernetes.io, "Authentication: client-go credential
plugins"). It may take a second and open a browser, so one run serves all requests that wait for a token,
and its token is kept until it expires or the apiserver refuses it.

Invariants
    at most one run of the plugin at a time, and none that outlives RUN_S
    a token shows in no log, error or repr
"""

import asyncio
import datetime
import json
import os
from collections.abc import Callable, Mapping, Sequence

from apimachinery.objects import JSON

API_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
"""In all of them a plugin that gives a token reads and prints the same; they differ in what is mandatory."""

RUN_S = 60.0  # a person may have to confirm a login, but not without end
_EARLY_S = 10.0  # a token that expires on its way is refused
_STDERR_CHARACTERS = 500


class CredentialsUnavailable(Exception):
    """The plugin gave no token; the text says why, for the operator."""


class ExecPlugin:
    """One plugin and its current token."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        api_version: str,
        env: Mapping[str, str],
        cluster: Mapping[str, JSON],
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """
        env: added to this process's. cluster: what the plugin is told of the cluster (spec.cluster).

        Raises CredentialsUnavailable for an API version that is none of API_VERSIONS.
        """
        if api_version not in API_VERSIONS:
            known = ", ".join(API_VERSIONS)
            raise CredentialsUnavailable(f'the exec plugin\'s apiVersion "{api_version}" is not one of {known}')
        self._command = tuple(command)
        self._env = dict(env)
        info = {
            "apiVersion": api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False, "cluster": dict(cluster)},
        }
        self._env["KUBERNETES_EXEC_INFO"] = json.dumps(info)
        self._now = now
        self._one_run = asyncio.Lock()
        self._token = ""
        self._expires: datetime.datetime | None = None

    async def token(self, refused: str = "") -> str:
        """
        The current token; another one when it is `refused` or has expired.

        Raises CredentialsUnavailable.
        """
        async with self._one_run:
            if not self._token or self._token == refused or self._is_expired():
                self._token, self._expires = _read(await self._run(), self._command[0])
            return self._token

    def _is_expired(self) -> bool:
        return self._expires is not None and self._now() + datetime.timedelta(seconds=_EARLY_S) >= self._expires

    async def _run(self) -> bytes:
        name = self._command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **self._env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            raise CredentialsUnavailable(f"the exec plugin {name} cannot be started: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(RUN_S):
                output, complaint = await process.communicate()
        except TimeoutError:
            raise CredentialsUnavailable(f"the exec plugin {name} gave no answer within {RUN_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = complaint.decode(errors="replace").strip()[-_STDERR_CHARACTERS:]
            raise CredentialsUnavailable(f"the exec plugin {name} failed with exit code {process.returncode}: {said}")
        return output


def _read(output: bytes, name: str) -> tuple[str, datetime.datetime | None]:
    try:
        status = json.loads(output)["status"]
        token = status.get("token")
        expires = status.get("expirationTimestamp")
        moment = datetime.datetime.fromisoformat(expires) if expires else None
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without the cause: a JSON error quotes its document.
        raise CredentialsUnavailable(f"the exec plugin {name} did not print an ExecCredential") from None
    if not isinstance(token, str) or not token:
        raise CredentialsUnavailable(f"the exec plugin {name} gave no token; client certificates are not supported")
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return token, moment
