"""
Who stands at a hub's door: asks the gate whom to let in, tells people whom it turned away, and who came twice.

What the gate and the book of clones decide is done here: Events on the Node, a line of the log, and, where the policy
is so, a ban. That is written to the apiserver, and counts at every hub process as any other ban does.
"""

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from apimachinery.errors import ApiError
from apimachinery.events import Change
from apimachinery.keys import Node
from apimachinery.kubeevents import KubeEvent
from apimachinery.watchcache import WatchCache
from cloudhub.clones import Clones
from cloudhub.gate import Gate
from cloudhub.lobby import Denial
from componentbase.words import rfc3339
from link.frames import GoodbyeCode

logger = logging.getLogger(__name__)

RETRY_S = 5.0
MOST_TO_BAN = 1024  # nodes; one more shows itself again in a minute

Ban = Callable[[Node, str, datetime.datetime], Awaitable[None]]


class Doorkeeper:
    """Is a cloudhub.lobby.Door. run() must be going for clones to be banned."""

    def __init__(
        self,
        cache: WatchCache,
        ban: Ban,
        say: Callable[[KubeEvent], None],
        *,
        bans_clones: bool = False,
        requires_key: bool = False,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """ban: cloudhub.roster.Roster.ban. say: has an Event told. requires_key: see cloudhub.gate."""
        self.clones = Clones()
        self.gate = Gate(cache, requires_key=requires_key)
        self._ban = ban
        self._say = say
        self._bans_clones = bans_clones
        self._now = now
        self._to_ban: dict[Node, str] = {}
        self._woken = asyncio.Event()

    def changed(self, changes: Sequence[Change]) -> list[Node]:
        """From the reflectors; returns the nodes that may be let in no more, or again."""
        return [node for change in changes if (node := self.gate.observe(change)) is not None]

    def refusal(self, node: Node, key: str, *, joined_with: str | None = None) -> Denial | None:
        return self.gate.refusal(node, key, joined_with=joined_with)

    def joined_with(self, node: Node) -> str | None:
        return self.gate.joined_with(node)

    def turned_away(self, node: Node, refusal: Denial) -> None:
        if refusal.code is GoodbyeCode.BANNED and (event := self.gate.event(node, self._at())) is not None:
            self._say(event)

    def superseded(self, node: Node, remotes: Sequence[str]) -> None:
        now_s = asyncio.get_running_loop().time()
        clone = self.clones.shown(node, remotes, self._at(), now_s)
        if not clone.is_proven:
            return
        logger.warning(
            "a certificate is used from two places",
            extra={"node": node, "addresses": ", ".join(clone.addresses), "times": clone.times},
        )
        if (event := self.clones.event(clone, now_s)) is not None:
            self._say(event)
        if self._bans_clones and len(self._to_ban) < MOST_TO_BAN:
            self._to_ban[node] = f"its certificate is used from two places: {', '.join(clone.addresses)}"
            self._woken.set()

    async def run(self) -> NoReturn:
        """Ban whom the policy wants banned; until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._to_ban:
                node, reason = next(iter(self._to_ban.items()))
                try:
                    await self._ban(node, reason, self._now())
                except ApiError as exc:
                    logger.warning("cannot ban a node, trying again", extra={"node": node, "problem": str(exc)})
                    await asyncio.sleep(RETRY_S)
                else:
                    del self._to_ban[node]

    def _at(self) -> str:
        return rfc3339(self._now())
