"""
Bodies made small: compressed by zlib with a dictionary that both ends have.

For a difference the dictionary is the body that the node holds. For a whole body it is DICTIONARY: the words
that most Kubernetes objects consist of, in the order in which canonical JSON has them. Without it a pod of 4 KB
takes twice the bytes, and a small object gains nothing (docs/why/deltas.md has the figures).

zlib looks back 32 KiB and no further, so of a body that is larger it would not find where the new one is like it. Of
such a body what is the same at both ends is cut off first, and only what is between is packed.

Most of zlib's time goes into a search for what repeats. In the base64 of what was compressed or encrypted nothing does,
and codes for single bytes alone are as small, in a third of the time. So of a large body a few pieces are tried first.

Invariants
    unpack(pack(body, d), len(body), d) == body
    unpack_against(pack_against(body, held), len(body), held) == body
    neither makes more than the size it was told
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

LEVEL = 6  # zlib's default; level 1 finds fewer matches in the dictionary and is no faster with one
PATCH_LEVEL = 3  # against the body before: half the time, for 5 to 40 bytes more
SMALL_WINDOW_BITS = 14
REACH = 32_000  # a little less than zlib's window, which is 32 KiB less 262 bytes
CONTEXT = 1024  # of what is the same on either side: much of what a change says stands beside it already
TRIED_BYTES = 256 << 10  # a search of what is shorter takes 11 ms at most, and a trial in which nothing repeats takes 6
PIECES = 32  # what is missed is seldom more than a 32nd of a body, which costs 2 % at most
PIECE_BYTES = 2048  # of a shorter one the table of codes is most; a longer one says the same
WINDOW_BYTES = 32 << 10  # what zlib sees before a piece
GAIN = 0.03  # what a search must save. Of base64: 0, or a little less; of JSON with 1 KB of it in each record: 0.05
_GOLDEN = 0.618  # its multiples fall evenly and in step with nothing, so that pieces do in their stretches
_ENDS = struct.Struct(">II")
"""How many bytes are the same at the beginning, and at the end."""

# Part of the protocol's number 1: whoever changes a byte of it changes the number. A stream names its dictionary
# (RFC 1950, DICTID), so that a peer with another one notices. What is most frequent stands last, where it is cheapest.
DICTIONARY = (
    # Custom resource definitions, storage, nodes.
    b'"additionalPrinterColumns":[{"jsonPath":".metadata.creationTimestamp","name":"Age","type":"date"}],'
    b'"names":{"kind":"","listKind":"List","plural":"","shortNames":[],"singular":""},"scope":"Namespaced",'
    b'"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"description":"","properties":{"type":"object","type":"string"'
    b'"type":"boolean","type":"integer","format":"int32"}},"served":true,"storage":true,"subresources":{"status":{}}}]'
    b'"accessModes":["ReadWriteOnce"],"capacity":{"storage":"Gi"},"persistentVolumeReclaimPolicy":"Retain",'
    b'"storageClassName":"","volumeMode":"Filesystem","volumeName":"pvc-","persistentVolumeClaim":{"claimName":"'
    b'"csi":{"driver":"","volumeAttributes":{},"volumeHandle":"'
    b'"allocatable":{"cpu":"","ephemeral-storage":"","hugepages-2Mi":"0","memory":"Ki","pods":"110"},"capacity":{'
    b'"nodeInfo":{"architecture":"amd64","bootID":"","containerRuntimeVersion":"containerd://","kernelVersion":"",'
    b'"kubeProxyVersion":"","kubeletVersion":"v1.","machineID":"","operatingSystem":"linux","osImage":"","systemUUID":""'
    b'"addresses":[{"address":"","type":"InternalIP"},{"address":"","type":"Hostname"}]'
    b'"beta.kubernetes.io/arch":"arm64","beta.kubernetes.io/os":"linux","kubernetes.io/hostname":"'
    b'"node-role.kubernetes.io/edge":"","taints":[{"effect":"NoSchedule","key":"'
    # Devices.
    b'{"apiVersion":"devices.kubeedge.io/v1beta1","kind":"DeviceModel","metadata":{'
    b'"spec":{"properties":[{"accessMode":"ReadOnly","description":"","maximum":"","minimum":"","name":"","type":"INT",'
    b'"unit":""},{"accessMode":"ReadWrite","name":"","type":"FLOAT","type":"STRING","type":"BOOLEAN"}],"protocol":"modbus"}}'
    b'{"apiVersion":"devices.kubeedge.io/v1beta1","kind":"Device","metadata":{"creationTimestamp":"20","generation":1,'
    b'"labels":{"description":""},"name":"","namespace":"default","uid":""},"spec":{"deviceModelRef":{"name":""},'
    b'"nodeName":"","properties":[{"collectCycle":10000,"desired":{"metadata":{"timestamp":"","type":"integer"},"value":""},'
    b'"name":"temperature","pushMethod":{"mqtt":{"address":"tcp://","qos":0,"retained":false,"topic":""}},"reportCycle":10000,'
    b'"reportToCloud":true,"visitors":{"configData":{"isRegisterSwap":false,"isSwap":false,"limit":1,"offset":0,'
    b'"register":"HoldingRegister","register":"CoilRegister","scale":1},"protocolName":"modbus"}}],"protocol":{"configData":{'
    b'"ip":"","port":502,"slaveID":1,"serialPort":"/dev/tty","baudRate":9600,"dataBits":8,"parity":"none","stopBits":1},'
    b'"protocolName":"modbus"}}}'
    # Services, config maps, secrets, service accounts.
    b'{"addressType":"IPv4","endpoints":[{"addresses":[""],"conditions":{"ready":true,"serving":true,"terminating":false}'
    b'"subsets":[{"addresses":[{"ip":"","nodeName":"","targetRef":{"kind":"Pod","name":"","namespace":"","uid":""}}]'
    b'{"apiVersion":"v1","kind":"Service","metadata":{"spec":{"clusterIP":"10.","clusterIPs":["10."],'
    b'"internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"http",'
    b'"port":80,"protocol":"TCP","targetPort":"http"}],"selector":{"app":""},"sessionAffinity":"None","type":"ClusterIP"},'
    b'"status":{"loadBalancer":{}}}{"apiVersion":"v1","kind":"ServiceAccount","metadata":{'
    b'{"apiVersion":"v1","data":{"tls.crt":"","tls.key":"","token":"","username":"","password":""},"immutable":true,'
    b'"kind":"Secret","metadata":{"type":"kubernetes.io/tls","type":"kubernetes.io/dockerconfigjson","type":"Opaque"}'
    b'{"apiVersion":"v1","data":{"config.yaml":"","ca.crt":"-----BEGIN CERTIFICATE-----\\n","config.json":"{\\n  \\"'
    b'\\"\\n}\\n",".conf":"","log_level":"info"},"kind":"ConfigMap","metadata":{"annotations":{},"creationTimestamp":"20'
    # What controllers leave in metadata.
    b'"app.kubernetes.io/component":"","app.kubernetes.io/instance":"","app.kubernetes.io/managed-by":"Helm",'
    b'"app.kubernetes.io/name":"","app.kubernetes.io/part-of":"","app.kubernetes.io/version":"","helm.sh/chart":"'
    b'"meta.helm.sh/release-name":"","meta.helm.sh/release-namespace":"","k8s-app":"","controller-revision-hash":"",'
    b'"batch.kubernetes.io/job-name":"","statefulset.kubernetes.io/pod-name":"","apps.kubernetes.io/pod-index":"0",'
    b'"blockOwnerDeletion":true,"controller":true,"kind":"DaemonSet","kind":"StatefulSet","kind":"Job",'
    b'"kubectl.kubernetes.io/default-container":"","kubectl.kubernetes.io/restartedAt":"20","finalizers":["kubernetes.io/'
    # A pod.
    b'"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":'
    b'[{"key":"metadata.name","operator":"In","values":[""]}]},"podAntiAffinity":{'
    b'"preferredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchLabels":{},"topologyKey":"'
    b'topology.kubernetes.io/zone","weight":100}],"topologySpreadConstraints":[{"maxSkew":1,"whenUnsatisfiable":"DoNotSchedule"'
    b'"command":["/bin/sh","-c",""],"envFrom":[{"configMapRef":{"name":""}},{"secretRef":{"name":""}}],'
    b'"valueFrom":{"secretKeyRef":{"key":"","name":""}}},{"valueFrom":{"configMapKeyRef":{"key":"","name":""}}},'
    b'"valueFrom":{"resourceFieldRef":{"containerName":"","divisor":"0","resource":"limits.memory"}}},'
    b'"fieldPath":"spec.nodeName"}}},"fieldPath":"metadata.name"}}},"fieldPath":"status.hostIP"}}},'
    b'"lifecycle":{"preStop":{"exec":{"command":["sleep",""]}}},"livenessProbe":{"exec":{"command":[""]},"tcpSocket":{"port":'
    b'"startupProbe":{"hostNetwork":true,"hostPID":true,"dnsPolicy":"ClusterFirstWithHostNet","hostPath":{"path":"/var/lib/",'
    b'"type":"DirectoryOrCreate"},"hostPort":"mountPropagation":"Bidirectional","subPath":"","privileged":true,'
    b'"add":["NET_ADMIN","NET_BIND_SERVICE"],"seccompProfile":{"type":"RuntimeDefault"},"runAsGroup":1000,"fsGroup":1000,'
    b'"imagePullSecrets":[{"name":""}],"initContainers":[{"nodeSelector":{"kubernetes.io/os":"linux"},'
    b'"priorityClassName":"system-node-critical","priority":2000001000,'
    b'"memory-pressure","disk-pressure","pid-pressure","unschedulable","network-unavailable",'
    b'"projected":{"defaultMode":420,"sources":[{"emptyDir":{"medium":"Memory","sizeLimit":"Mi"},"emptyDir":{},'
    b'"secret":{"defaultMode":420,"secretName":""}}'
    b'"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"20","message":"","reason":"","status":"True",'
    b'"type":"Initialized"},{"status":"False","type":"ContainersReady"},{"type":"Ready"},{"type":"PodScheduled"}],'
    b'"containerStatuses":[{"containerID":"containerd://","imageID":"","lastState":{},"ready":true,"restartCount":0,'
    b'"started":true,"state":{"running":{"startedAt":"20"}}}],"hostIP":"","podIP":"","podIPs":[{"ip":""}],"startTime":"20'
    b'{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"checksum/config":"","prometheus.io/path":"/metrics",'
    b'"prometheus.io/port":"","prometheus.io/scrape":"true"},"creationTimestamp":"2026-01-01T00:00:00Z","generateName":"",'
    b'"generation":1,"labels":{"app":"","app.kubernetes.io/component":"","app.kubernetes.io/instance":"",'
    b'"app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/name":"","app.kubernetes.io/version":"",'
    b'"pod-template-hash":""},"name":"","namespace":"default","ownerReferences":[{"apiVersion":"apps/v1",'
    b'"blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"","uid":""}],"uid":""},'
    b'"spec":{"containers":[{"args":["--","--"],"env":[{"name":"","value":"true"},{"name":"","value":"http://"},{"name":"'
    b'POD_NAMESPACE","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}},{"name":"POD_IP",'
    b'"valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"status.podIP"}}},{"name":"","value":""}],'
    b'"image":"docker.io/library/","image":"registry.k8s.io/","image":"ghcr.io/","image":"quay.io/:v@sha256:",'
    b'"imagePullPolicy":"Always","imagePullPolicy":"IfNotPresent","livenessProbe":{"failureThreshold":3,"httpGet":{'
    b'"path":"/healthz","port":"http","scheme":"HTTP"},"initialDelaySeconds":10,"periodSeconds":10,"successThreshold":1,'
    b'"timeoutSeconds":1},"name":"","ports":[{"containerPort":8080,"name":"http","protocol":"TCP"},{"containerPort":9090,'
    b'"name":"metrics","protocol":"TCP"}],"readinessProbe":{"failureThreshold":3,"httpGet":{"path":"/readyz",'
    b'"port":8080,"scheme":"HTTP"},"initialDelaySeconds":5,"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1},'
    b'"resources":{"limits":{"cpu":"500m","memory":"512Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"resources":{},'
    b'"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,'
    b'"runAsNonRoot":true,"runAsUser":1000},"terminationMessagePath":"/dev/termination-log",'
    b'"terminationMessagePolicy":"File","volumeMounts":[{"mountPath":"/etc/","name":"config","readOnly":true},{"mountPath":"'
    b'/var/lib/","name":"data"},{"mountPath":"/tmp","name":"tmp"},{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount",'
    b'"name":"kube-api-access-","readOnly":true}]}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"nodeName":"",'
    b'"preemptionPolicy":"PreemptLowerPriority","priority":0,"restartPolicy":"Always","schedulerName":"default-scheduler",'
    b'"securityContext":{},"serviceAccount":"default","serviceAccountName":"default","terminationGracePeriodSeconds":30,'
    b'"tolerations":[{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},'
    b'{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}],"volumes":['
    b'{"configMap":{"defaultMode":420,"name":""},"name":""},{"name":"kube-api-access-","projected":{"defaultMode":420,'
    b'"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"items":[{"key":"ca.crt",'
    b'"path":"ca.crt"}],"name":"kube-root-ca.crt"}},{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1",'
    b'"fieldPath":"metadata.namespace"},"path":"namespace"}]}}]}}]},'
    b'"status":{"phase":"Running","phase":"Pending","qosClass":"Burstable"}}'
)


class Unpackable(ValueError):
    """These bytes do not give a body of the size they are said to."""


def pack(body: bytes, dictionary: bytes = DICTIONARY, level: int = LEVEL, *, searching: bool | None = None) -> bytes:
    """
    The body as a zlib stream with a preset dictionary (RFC 1950, section 2.2, FDICT). O(both sizes).

    searching: whether to look for what repeats, which no reader needs to know; None for what repeats() says.
    """
    # The smaller window is set up in half the time, which is most of what a body of 4 KB costs.
    bits = SMALL_WINDOW_BITS if len(body) + len(dictionary) <= 1 << SMALL_WINDOW_BITS else zlib.MAX_WBITS
    if searching is None:
        searching = repeats(body, dictionary)
    strategy = zlib.Z_DEFAULT_STRATEGY if searching else zlib.Z_HUFFMAN_ONLY
    packer = zlib.compressobj(level, wbits=bits, strategy=strategy, zdict=dictionary)
    return packer.compress(body) + packer.flush()


def repeats(body: bytes, dictionary: bytes = DICTIONARY) -> bool:
    """
    Whether a search for what repeats is worth its time: it is taken to be in all but large bodies.

    Each piece is packed with what zlib would see before it, and without a search. Where much repeats the first piece
    or two decide; all of them take 6 ms.
    """
    if len(body) <= TRIED_BYTES:
        return True
    stretch = (len(body) - PIECE_BYTES) / PIECES
    saved = coded = 0
    for number in range(PIECES):
        start = int((number + number * _GOLDEN % 1) * stretch)
        piece = body[start : start + PIECE_BYTES]
        before = body[max(0, start - WINDOW_BYTES) : start]
        if len(before) < WINDOW_BYTES:
            before = dictionary[len(before) - WINDOW_BYTES :] + before
        alone = len(_raw(piece, zlib.Z_HUFFMAN_ONLY, b""))
        coded += alone
        saved += alone - len(_raw(piece, zlib.Z_DEFAULT_STRATEGY, before))
        if saved > GAIN * (coded + (PIECES - number - 1) * PIECE_BYTES):
            return True
    return False


def _raw(piece: bytes, strategy: int, before: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS, strategy=strategy, zdict=before)
    return packer.compress(piece) + packer.flush()


class Difference(NamedTuple):
    """What is to be packed of a body for whoever holds another one."""

    ends: bytes
    """How much of the other one's beginning and end it has; empty where neither was cut off."""
    rest: bytes
    dictionary: bytes

    def packed(self, *, searching: bool | None = None) -> bytes:
        """What unpack_against() takes. searching: as pack() has it."""
        return self.ends + pack(self.rest, self.dictionary, PATCH_LEVEL, searching=searching)


def differing(body: bytes, held: bytes) -> Difference:
    """What is to be packed of a body for whoever holds that one. O(both sizes), and quick."""
    if len(held) <= REACH:
        return Difference(b"", body, held)
    size, other, most = len(body), len(held), min(len(body), len(held))
    start = _common(most, lambda low, high: body[low:high] == held[low:high])
    end = _common(most - start, lambda low, high: body[size - high : size - low] == held[other - high : other - low])
    return Difference(_ENDS.pack(start, end), body[start : size - end], _between(held, start, end))


def pack_against(body: bytes, held: bytes) -> bytes:
    """The body as what differs from one that the other side holds. O(both sizes)."""
    return differing(body, held).packed()


def unpack_against(data: bytes, size: int, held: bytes) -> bytes:
    """The body of `size` bytes that pack_against() was given with this `held`. Raises Unpackable for anything else."""
    if len(held) <= REACH:
        return unpack(data, size, held)
    if len(data) < _ENDS.size:
        raise Unpackable("is cut short")
    start, end = _ENDS.unpack_from(data)
    if start + end > min(size, len(held)):
        raise Unpackable(f"takes {start} and {end} bytes of {len(held)} for one of {size}")
    middle = unpack(data[_ENDS.size :], size - start - end, _between(held, start, end))
    return held[:start] + middle + held[len(held) - end :]


def _between(held: bytes, start: int, end: int) -> bytes:
    return held[max(0, start - CONTEXT) : len(held) - end + CONTEXT]


def _common(most: int, same: Callable[[int, int], bool]) -> int:
    """How many bytes, of so many at most, same() says to be the same from one to another. O(that), by the block."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if same(low, middle):
            low = middle
        else:
            high = middle - 1
    return low


def unpack(data: bytes, size: int, dictionary: bytes = DICTIONARY) -> bytes:
    """
    The body of `size` bytes that pack() was given.

    Raises Unpackable for anything else: another dictionary, rubbish, a stream cut short, one that goes on.
    """
    unpacker = zlib.decompressobj(zdict=dictionary)
    try:
        # One byte of room is left over, for a stream that ends is only known to at what follows its last byte.
        body = unpacker.decompress(data, size + 1)
    except zlib.error as exc:
        raise Unpackable(f"cannot be unpacked: {exc}") from exc
    if not unpacker.eof or len(body) != size or unpacker.unused_data:
        raise Unpackable(f"does not unpack to {size} bytes")
    return body
