"""Who signs the nodes, where it is the installation's own CA; and how it is said that there is nothing yet."""

import json

import pytest

from apimachinery.errors import Invalid
from apimachinery.keys import Node
from cloudhub.authority import Authority
from cloudhub.signers import Issued, OwnSigner, Waiting, Wanted, come_again
from cloudhub.vault import Vault
from componentbase import pki
from tests.harness.objects import MemoryObjects


async def test_our_own_ca_signs_at_once_and_only_what_a_node_may_have() -> None:
    authority = await Authority.load(Vault(MemoryObjects()))
    signer = OwnSigner(authority)
    _, csr = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    wanted = Wanted(Node("edge-1"), csr, pki.read_csr(csr).key, "renewal")
    for given in (await signer.found(wanted), await signer.ask(wanted)):
        assert isinstance(given, Issued)
        assert pki.key_id(given.certificate) == wanted.key == authority.requested_key(csr, Node("edge-1"))
        assert pki.leads_to(given.certificate, authority.clients_pem)
    with pytest.raises(Invalid, match="edge-1"):
        await signer.found(wanted._replace(node=Node("edge-2")))


def test_whoever_has_to_wait_hears_what_for_and_when_to_come_again() -> None:
    answer = come_again(Node("edge-1"), Waiting("somebody is asleep", again_s=7))
    assert answer.status == 202
    assert ("retry-after", "7") in answer.headers
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"node": "edge-1", "message": "somebody is asleep"}
