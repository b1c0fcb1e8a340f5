"""A SPIFFE Workload API that does what a test says, rightly or wrongly: a real gRPC server (Debian's python3-grpcio) on a unix socket.

    api = WorkloadApi(folder)
    api.answer(message(entry(svid)))               # on the streams that wait for an answer, and first on every new one
    api.behave(denied)                             # or silent, ended, flood(...), any generator over a call; open streams are cut
    api.calls                                      # when each stream began, by time.monotonic()
    api.stop(); api.start()                        # dies, and comes back

Messages are encoded here: what a protobuf library would not send is sent, too."""

import base64
import contextlib
import os
import queue
import threading
import time
from concurrent import futures

import grpc

from kit.pki import openssl

METHOD = "/SpiffeWorkloadAPI/FetchX509SVID"


def field(number, payload):
    """A length-delimited field of protobuf."""
    payload = payload.encode() if isinstance(payload, str) else payload
    size, length = b"", len(payload)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + payload


def der_of(pem):
    """What is between the lines of every PEM block, one after another."""
    blocks = [block.split("-----")[1] for block in pem.split("-----BEGIN ")[1:]]
    return b"".join(base64.b64decode("".join(block.split())) for block in blocks)


def entry(svid, *, hint="", chain=None, key=None, bundle=None, spiffe_id=None):
    """One X509SVID message; `chain`, `key` and `bundle` (DER) replace what belongs there."""
    pkcs8 = openssl("pkcs8", "-topk8", "-nocrypt", stdin=svid.key)
    parts = (spiffe_id or svid.spiffe_id, der_of(svid.chain) if chain is None else chain, der_of(pkcs8) if key is None else key,
             der_of(svid.bundle) if bundle is None else bundle, hint)
    return b"".join(field(number, part) for number, part in enumerate(parts, 1))


def message(*entries):
    """An X509SVIDResponse of these entries."""
    return b"".join(field(1, one) for one in entries)


def silent(call):
    """Takes the request, and never says anything."""
    gone = threading.Event()
    call.add_callback(gone.set)
    gone.wait()
    yield from ()


def ended(_call):
    """Ends the stream at once, with status OK."""
    yield from ()


def denied(call):
    """What SPIRE's agent says to whom it does not know."""
    call.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
    yield b""


def saying(*messages, then=silent):
    """These messages, then that."""
    def run(call):
        yield from messages
        yield from then(call)
    return run


class WorkloadApi:
    """The server, on workload.sock of `folder`."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)
        self.path = f"{folder}/workload.sock"
        self.endpoint = f"unix://{self.path}"
        self.calls, self._behaviour, self._open, self._server, self._answer, self._waiting = [], silent, [], None, b"", []

    def start(self):
        handler = grpc.unary_stream_rpc_method_handler(self._serve)  # without serializers: bytes as they are
        service, method = METHOD[1:].split("/")
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_send_message_length", -1)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        if not self._server.add_insecure_port(f"unix:{self.path}"):
            raise OSError(f"cannot listen at {self.path}")
        self._server.start()
        os.chmod(self.path, 0o666)

    def stop(self):
        """As a crash would: every stream is cut."""
        if self._server:
            self._server.stop(None).wait()
            self._server = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def behave(self, behaviour):
        """How every stream goes from now on; those that are open are cut, so that the other end comes again."""
        self._behaviour = behaviour
        for call in list(self._open):
            call.cancel()

    def answer(self, answer):
        """What a right server does with something new: it says it on every open stream. One that behaves otherwise is cut."""
        if self._behaviour == self._follow:
            self._answer = answer
            for waiting in list(self._waiting):
                waiting.put(answer)
        else:
            self._answer = answer
            self.behave(self._follow)

    def _follow(self, call):
        waiting = queue.SimpleQueue()
        call.add_callback(lambda: waiting.put(None))  # the stream's end
        waiting.put(self._answer)
        self._waiting.append(waiting)
        while (answer := waiting.get()) is not None:
            yield answer
        self._waiting.remove(waiting)

    def _serve(self, _request, call):
        if ("workload.spiffe.io", "true") not in [(name, value) for name, value in call.invocation_metadata()]:
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")  # Workload Endpoint section 3
        self.calls.append(time.monotonic())
        self._open.append(call)
        call.add_callback(lambda: self._open.remove(call))
        yield from self._behaviour(call)
