"""A gRPC server of the official library, plain HTTP/2, that tells what reached it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from queue import Queue

import grpc

# How a call ended for the server, when it did not end by itself.
CANCELLED = "cancelled"


class GrpcUpstream(grpc.GenericRpcHandler):
    """`/interop.Echo/Once` echoes, `/Many` echoes three times, `/Collect` joins, `/Chat` echoes one by one, `/Forever`
    echoes once and stays open, `/Late` answers when the caller's deadline has passed, `/Fail` fails."""

    def __init__(self) -> None:
        self.ended: Queue[str] = Queue()
        self.remaining: Queue[float] = Queue()
        self.peers: list[str] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return {
            "/interop.Echo/Once": grpc.unary_unary_rpc_method_handler(self._once),
            "/interop.Echo/Many": grpc.unary_stream_rpc_method_handler(self._many),
            "/interop.Echo/Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "/interop.Echo/Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "/interop.Echo/Forever": grpc.unary_stream_rpc_method_handler(self._forever),
            "/interop.Echo/Late": grpc.unary_unary_rpc_method_handler(self._late),
            "/interop.Echo/Fail": grpc.unary_unary_rpc_method_handler(self._fail),
        }.get(details.method)

    def _tell(self, context: grpc.ServicerContext) -> None:
        sent = dict(context.invocation_metadata())
        self.peers.append(context.peer())
        context.set_trailing_metadata(
            (("seen-key", str(sent.get("x-api-key", ""))), ("seen-note", sent.get("note-bin", b"").hex()),
             ("seen-mandate", str("authorization" in sent)))
        )

    def _once(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._tell(context)
        return request

    def _many(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._tell(context)
        yield from [request] * 3

    def _collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._tell(context)
        return b",".join(requests)

    def _chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._tell(context)
        yield from requests

    def _forever(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        over = threading.Event()
        context.add_callback(over.set)
        yield request
        over.wait(30)
        self.ended.put(CANCELLED)

    def _late(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        over = threading.Event()
        context.add_callback(over.set)
        self.remaining.put(context.time_remaining())
        over.wait(30)
        self.ended.put(CANCELLED)
        return request

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ü")
