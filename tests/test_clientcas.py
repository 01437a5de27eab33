"""The CAs of the cluster's clients: of the ConfigMap, or of a file."""

from pathlib import Path

import pytest

from apimachinery.errors import InternalError, NotFound
from apiserver import signer as controller
from cloudhub.clientcas import ClientCas
from componentbase import pki
from tests.harness.cluster import ClusterObjects, cluster

CA = pki.create_ca("clients", 1)


async def test_the_cas_are_the_clusters_or_those_of_a_file(tmp_path: Path) -> None:
    async with cluster(tmp_path) as api:
        await api("POST", "/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        await controller.publish(api.storage, CA.cert_pem)
        objects = ClusterObjects(api)
        assert await ClientCas(objects)() == CA.cert_pem
        file = tmp_path / "ca.crt"
        with pytest.raises(FileNotFoundError):
            await ClientCas(objects, file)()
        file.write_text("hello")
        with pytest.raises(InternalError, match="no certificate in PEM form"):
            await ClientCas(objects, file)()
        file.write_bytes(CA.cert_pem.replace(b"MII", b"AAA", 1))
        with pytest.raises(InternalError, match="no certificate in PEM form"):
            await ClientCas(objects, file)()
        for comment in ("# Zürich\n".encode(), "# Zürich\n".encode("latin-1"), b""):
            file.write_bytes(comment + CA.cert_pem)
            assert await ClientCas(objects, file)() == CA.cert_pem
        await api("DELETE", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        with pytest.raises(NotFound, match="--client-ca"):
            await ClientCas(objects)()
