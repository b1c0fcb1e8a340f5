"""The cluster's DNS for tests: answers for Services (NAME.NAMESPACE.svc.cluster.local) as the API server has them at that moment. It stands where
CoreDNS would, which is no part of Kubernetes itself: A records of ClusterIPs over UDP, and nothing else."""

import socket
import struct
import threading

from kit.kube import ApiError

SUFFIX = ["svc", "cluster", "local"]
A, NXDOMAIN = 1, 3


class ClusterNames:
    """Answers at port 53 of the pod, in a thread of its own, until close()."""

    def __init__(self, kube, pod):
        self._api = kube.api()
        self._closed = threading.Event()
        with pod.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((pod.v4, 53))
        self._socket.settimeout(0.2)  # how soon close() is noticed
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._closed.set()
        self._thread.join()
        self._socket.close()

    def _serve(self):
        while not self._closed.is_set():
            try:
                query, sender = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(query), sender)
            except (TimeoutError, ApiError, OSError, ValueError, IndexError, struct.error):
                pass  # the resolver asks again

    def _answer(self, query):
        """RFC 1035 section 4: the header, the question as it came, and at most one record."""
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1:at + 1 + length].decode("ascii").lower())
            at += 1 + length
        kind = struct.unpack("!H", query[at + 1:at + 3])[0]
        address = self._address(labels)
        record = struct.pack("!HHHIH4s", 0xc00c, A, 1, 5, 4, socket.inet_aton(address)) if address and kind == A else b""
        flags = 0x8580 | (0 if address else NXDOMAIN)  # an authoritative answer
        return query[:2] + struct.pack("!HHHHH", flags, 1, 1 if record else 0, 0, 0) + query[12:at + 5] + record

    def _address(self, labels):
        if len(labels) != 5 or labels[2:] != SUFFIX:
            return None
        try:
            address = self._api.get("Service", labels[0], labels[1])["spec"].get("clusterIP")
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return None if address in (None, "None") else address
