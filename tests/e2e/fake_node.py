"""Talks shoal.v1 from Python: a client, and a node that claims to be of another version.

The messages come from proto/shoal.proto through protoc's descriptor set, so there is no generated
code to keep and no fixed version of the protobuf runtime.
"""
import pathlib
import subprocess
import tempfile
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load_messages():
    """Name -> class of every message of shoal.proto and health.proto."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        subprocess.run(["protoc", f"-I{PROTO}", f"--descriptor_set_out={out}", "--include_imports",
                        "shoal.proto", "health.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return message_factory.GetMessages(files.file, pool=descriptor_pool.DescriptorPool())


MESSAGES = load_messages()


def message(name):
    return MESSAGES[f"shoal.v1.{name}"]


class NodeClient:
    """Calls a node's unary methods: client.call("Describe")."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)

    def call(self, method, seconds=10, **fields):
        request, response = message(method + "Request"), message(method + "Response")
        stub = self.channel.unary_unary(f"/shoal.v1.Node/{method}",
                                        request_serializer=request.SerializeToString,
                                        response_deserializer=response.FromString)
        return stub(request(**fields), timeout=seconds)

    def health(self, service="", seconds=10):
        request = MESSAGES["grpc.health.v1.HealthCheckRequest"]
        response = MESSAGES["grpc.health.v1.HealthCheckResponse"]
        stub = self.channel.unary_unary("/grpc.health.v1.Health/Check",
                                        request_serializer=request.SerializeToString,
                                        response_deserializer=response.FromString)
        return stub(request(service=service), timeout=seconds)

    def close(self):
        self.channel.close()


class FakeNode(grpc.GenericRpcHandler):
    """Answers Describe with the given fields, and nothing else."""

    def __init__(self, **described):
        self.described = described
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def service(self, handler_call_details):
        if handler_call_details.method != "/shoal.v1.Node/Describe":
            return None
        request, response = message("DescribeRequest"), message("DescribeResponse")
        return grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: response(**self.described),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString)

    def stop(self):
        self.server.stop(0).wait()
