"""
What this node shows: to the hub, and at the local API where that has TLS; and who renews it.

The files change while edgecore runs, so what is made of them is made again by whoever renews.
"""

import logging
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from apimachinery.keys import Node
from componentbase import cli
from componentbase.tls import LiveContext, TlsMin, server_context
from edgecore.settings import CloudConfig, EdgeConfig, are_joined, join_endpoint

if TYPE_CHECKING:
    from edgehub.connector import LinkStatus
    from edgehub.renewal import Renewal

logger = logging.getLogger(__name__)


def link_context(cloud: CloudConfig) -> ssl.SSLContext:
    """What the hub is shown, and what it must show. Raises CommandError."""
    from edgehub.connector import hub_context

    for path in (cloud.certificate_authority, cloud.certificate, cloud.key):
        try:
            path.open("rb").close()
        except OSError as exc:  # ssl's own errors do not say which file
            raise cli.CommandError(
                f"cannot read {path}: {exc.strerror}; put it back, or join again with --force"
            ) from exc
    try:
        return hub_context(cloud.certificate_authority, cloud.certificate, cloud.key, cloud.tls_min)
    except OSError as exc:  # ssl.SSLError is one
        names = f"{cloud.certificate_authority}, {cloud.certificate}, {cloud.key}"
        raise cli.CommandError(
            f"this node's certificates cannot be used ({names}): {exc}; join again with --force"
        ) from exc


def api_context(settings: EdgeConfig) -> LiveContext:
    """What the local API shows, and whose client certificates it looks at: those of the join CA."""
    made = LiveContext(server_context(TlsMin.TLS_1_2), ssl.CERT_OPTIONAL)
    try:
        show(made, settings)
    except OSError as exc:  # ssl.SSLError is one
        names = f"{settings.api.certificate}, {settings.api.key}"
        raise cli.CommandError(
            f"the local API's certificate and key cannot be used ({names}): {exc}; join again with --force to get them"
        ) from exc
    return made


def show(served: LiveContext, settings: EdgeConfig) -> None:
    """Raises OSError."""
    trusted = settings.cloud.certificate_authority.read_text()
    served.replace(str(settings.api.certificate), trusted, str(settings.api.key))


def renewal(settings: EdgeConfig, data_dir: Path, link: "LinkStatus", renewed: Callable[[], None]) -> "Renewal | None":
    """None where the certificates are somebody else's to renew."""
    from edgehub.renewal import Renewal

    cloud = settings.cloud
    if not are_joined(cloud, data_dir):
        logger.info("certificates outside of the data directory are not renewed", extra={"file": cloud.certificate})
        return None
    try:
        return Renewal(data_dir, Node(settings.node), join_endpoint(cloud), link, renewed, random.random, cloud.tls_min)
    except (OSError, ValueError) as exc:
        logger.warning("this node's certificate cannot be renewed", extra={"reason": str(exc)})
        return None
