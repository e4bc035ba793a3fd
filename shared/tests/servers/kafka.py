"""The mock brokers that librdkafka brings along for its own tests: kafka.py PORT BROKERS.

They listen on ports of their own choice. At PORT one line is one command, answered by one line: `ok`, what was asked for, or
an error. Messages and commits come from librdkafka's real client.
"""

import ctypes
import socketserver
import sys
from pathlib import Path

import confluent_kafka
from confluent_kafka import Consumer, Producer, TopicPartition

port, brokers = int(sys.argv[1]), int(sys.argv[2])

(library,) = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs").glob("librdkafka-*.so*")
kafka = ctypes.CDLL(str(library))
for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
    getattr(kafka, name).restype = ctypes.c_void_p
kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

why = ctypes.create_string_buffer(512)
handle = kafka.rd_kafka_new(0, ctypes.c_void_p(kafka.rd_kafka_conf_new()), why, ctypes.c_size_t(512))
assert handle, why.value
cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(ctypes.c_void_p(handle), brokers))
servers = kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode()
producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})


def mock(function, *arguments):
    error = getattr(kafka, f"rd_kafka_mock_{function}")(cluster, *arguments)
    assert error == 0, f"{function}: {error}"


def topic(name, partitions, replicas):
    mock("topic_create", name.encode(), int(partitions), int(replicas))


def produce(name, partition, count):
    for _ in range(int(count)):
        producer.produce(name, b"a message", partition=int(partition))
    assert producer.flush(20) == 0, "not all messages were taken"


def commit(group, name, partition, offset):
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    try:
        (told,) = consumer.commit(offsets=[TopicPartition(name, int(partition), int(offset))], asynchronous=False)
        assert told.error is None, told.error
    finally:
        consumer.close()


def leader(name, partition, broker):
    mock("partition_set_leader", name.encode(), int(partition), int(broker))


def down(broker):
    mock("broker_set_down", int(broker))


def up(broker):
    mock("broker_set_up", int(broker))


def slow(broker, milliseconds):
    mock("broker_set_rtt", int(broker), int(milliseconds))


def coordinator(group, broker):
    mock("coordinator_set", b"group", group.encode(), int(broker))


def refuse(name, code):
    kafka.rd_kafka_mock_topic_set_error(cluster, name.encode(), int(code))


COMMANDS = {command.__name__: command for command in (topic, produce, commit, leader, down, up, slow, coordinator, refuse)}


class Control(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            word, *arguments = line.decode().split()
            try:
                answer = servers if word == "servers" else COMMANDS[word](*arguments) or "ok"
            except Exception as error:
                answer = f"error: {error!r}"
            self.wfile.write(f"{answer}\n".encode())


socketserver.TCPServer(("127.0.0.1", port), Control).serve_forever()
