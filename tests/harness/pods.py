"""
Pods of 4 KB as a Deployment makes them, for what is measured in bytes: no two share what is random in a real one.

Their shape is that of a web service with a proxy beside it. What differs from pod to pod are names, hashes, uids,
checksums, addresses, passwords and limits: about a quarter of the bytes, as text that does not compress to nothing.
Only the reference to the ReplicaSet is missing: an apiserver collects what has lost its owner.
"""

import base64
import random
from typing import Any

_WORDS = """
account archive audit billing cache cart catalog checkout customer delivery device edge event export fleet
gateway image index inventory invoice ledger login mail media meter metric notify order partner payment photo
plan price profile queue quota rating recipe region report route search sensor session shipment stock store
stream supplier survey tariff task tenant ticket token tracking upload vehicle vendor video voucher wallet
warehouse worker
"""
WORDS = tuple(_WORDS.split())
SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes random names of (k8s.io/apimachinery util/rand)."""


def deployed_pod(number: int, node: str, rng: random.Random) -> dict[str, Any]:
    """One replica of some Deployment, bound to `node`; `number` makes its name unique."""
    app, team, other = rng.choice(WORDS), rng.choice(WORDS), rng.choice(WORDS)
    template = "".join(rng.choices(SUFFIX, k=10))
    name = f"{app}-{team}-{template}-{number}"
    token = f"kube-api-access-{''.join(rng.choices(SUFFIX, k=5))}"
    mounts = [
        {"mountPath": f"/etc/{app}", "name": "config", "readOnly": True},
        {"mountPath": f"/var/lib/{app}", "name": "state"},
        {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": token, "readOnly": True},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": f"{app}-{team}-{template}-",
            "annotations": {
                "checksum/config": _hexadecimal(rng, 64),
                "checksum/secret": _hexadecimal(rng, 64),
                "prometheus.io/port": str(rng.randint(9000, 9999)),
                "prometheus.io/scrape": "true",
            },
            "labels": {
                "app.kubernetes.io/component": rng.choice(WORDS),
                "app.kubernetes.io/instance": f"{app}-{team}",
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/name": app,
                "app.kubernetes.io/version": _version(rng),
                "pod-template-hash": template,
            },
        },
        "spec": {
            "containers": [
                {
                    "name": app,
                    "image": f"registry.example.com/{team}/{app}:{_version(rng)}@sha256:{_hexadecimal(rng, 64)}",
                    "imagePullPolicy": "IfNotPresent",
                    "args": [f"--listen=:{rng.randint(8000, 8999)}", f"--workers={rng.randint(1, 16)}", "--log=json"],
                    "env": [
                        {
                            "name": "POD_IP",
                            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
                        },
                        {"name": "DATABASE_URL", "value": f"postgres://{app}@{other}-{_address(rng)}:5432/{team}"},
                        {"name": "CACHE_URL", "value": f"redis://{_address(rng)}:6379/{rng.randint(0, 15)}"},
                        {"name": "API_KEY", "value": base64.b64encode(rng.randbytes(24)).decode()},
                        *(
                            {"name": f"{word.upper()}_{rng.choice(WORDS).upper()}", "value": str(rng.randint(0, 10**6))}
                            for word in rng.sample(WORDS, 12)
                        ),
                    ],
                    "ports": [
                        {"containerPort": rng.randint(8000, 8999), "name": "http", "protocol": "TCP"},
                        {"containerPort": rng.randint(9000, 9999), "name": "metrics", "protocol": "TCP"},
                    ],
                    "livenessProbe": _probe("/healthz", rng),
                    "readinessProbe": _probe("/readyz", rng),
                    "resources": _resources(rng),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                        "runAsUser": rng.randint(1000, 65000),
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": mounts,
                },
                {
                    "name": "proxy",
                    "image": f"registry.example.com/mesh/proxy:{_version(rng)}",
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["proxy", "--upstream", f"127.0.0.1:{rng.randint(8000, 8999)}"],
                    "resources": _resources(rng),
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": mounts[2:],
                },
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "nodeName": node,
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {"fsGroup": rng.randint(1000, 65000), "runAsNonRoot": True},
            "serviceAccount": app,
            "serviceAccountName": app,
            "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {
                    "effect": "NoExecute",
                    "key": f"node.kubernetes.io/{condition}",
                    "operator": "Exists",
                    "tolerationSeconds": 300,
                }
                for condition in ("not-ready", "unreachable")
            ],
            "volumes": [
                {"configMap": {"defaultMode": 420, "name": f"{app}-{team}"}, "name": "config"},
                {"emptyDir": {"sizeLimit": f"{rng.randint(1, 64)}Gi"}, "name": "state"},
                {
                    "name": token,
                    "projected": {
                        "defaultMode": 420,
                        "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                            {
                                "configMap": {
                                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                                    "name": "kube-root-ca.crt",
                                }
                            },
                            {
                                "downwardAPI": {
                                    "items": [
                                        {
                                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                            "path": "namespace",
                                        }
                                    ]
                                }
                            },
                        ],
                    },
                },
            ],
        },
    }


def _hexadecimal(rng: random.Random, digits: int) -> str:
    return f"{rng.getrandbits(digits * 4):0{digits}x}"


def _version(rng: random.Random) -> str:
    return f"{rng.randint(0, 9)}.{rng.randint(0, 40)}.{rng.randint(0, 40)}"


def _address(rng: random.Random) -> str:
    return ".".join(str(rng.randint(1, 254)) for _ in range(4))


def _probe(path: str, rng: random.Random) -> dict[str, Any]:
    return {
        "failureThreshold": rng.randint(2, 9),
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "initialDelaySeconds": rng.randint(1, 60),
        "periodSeconds": rng.randint(5, 30),
        "successThreshold": 1,
        "timeoutSeconds": rng.randint(1, 9),
    }


def _resources(rng: random.Random) -> dict[str, Any]:
    cpu, memory = rng.randint(1, 40) * 25, rng.randint(1, 64) * 32
    return {
        "limits": {"cpu": f"{cpu * 2}m", "memory": f"{memory * 2}Mi"},
        "requests": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"},
    }
