#!/usr/bin/env python3
"""confluent-kafka's serializers against a server's schema registry: registry.py BOOTSTRAP HTTP. Non-zero on any failure.

What they write is read by streams whose columns come from the registry; what queries write is read by the deserializers.
"""
import json
import signal
import sys
import time
import urllib.error
import urllib.request
import uuid

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, StringSerializer
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

signal.alarm(300)
BOOTSTRAP, HTTP = sys.argv[1], sys.argv[2]
RUN = uuid.uuid4().hex[:8]
registry = SchemaRegistryClient({"url": HTTP})
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
producer = Producer({"bootstrap.servers": BOOTSTRAP})


def say(text):
    print("registry:", text, flush=True)


def sql(text, path="/ksql", **more):
    body = json.dumps({"ksql" if path == "/ksql" else "sql": text, **more}).encode()
    request = urllib.request.Request(HTTP + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.read().decode()


def rows(query):
    """The rows of a pull query, once there are any."""
    until = time.time() + 60
    while time.time() < until:
        lines = [json.loads(line) for line in sql(query, "/query-stream").splitlines()]
        assert "queryId" in lines[0], lines
        if lines[1:]:
            return lines[1:]
        time.sleep(0.1)
    raise AssertionError("no rows of " + query)


def topic(name):
    name = f"{name}_{RUN}"
    for future in admin.create_topics([NewTopic(name, 1)]).values():
        future.result(20)
    return name


def write(name, serializer, values):
    for i, value in enumerate(values):
        body = serializer(value, SerializationContext(name, MessageField.VALUE))
        producer.produce(name, key=StringSerializer()(f"k{i}"), value=body)
    assert producer.flush(20) == 0


def read(name, deserializer, count):
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": RUN, "enable.auto.commit": False})
    consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    found, until = [], time.time() + 60
    while len(found) < count and time.time() < until:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            found.append(deserializer(message.value(), SerializationContext(name, MessageField.VALUE)))
    consumer.close()
    assert len(found) == count, found
    return found


def stream(kind, name, fmt):
    """A stream over the topic with columns from the registry, and one that a query writes from it."""
    answer = sql(
        f"CREATE STREAM {kind}_{RUN} (K STRING KEY) WITH (KAFKA_TOPIC='{name}', VALUE_FORMAT='{fmt}');"
        f"CREATE STREAM {kind}_OUT_{RUN} AS SELECT * FROM {kind}_{RUN};",
        streamsProperties={"auto.offset.reset": "earliest"},
    )
    assert "error" not in answer, answer
    return f"{kind}_OUT_{RUN}".upper()


ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "com.example",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "suit", "type": {"type": "enum", "name": "Suit", "symbols": ["SPADES", "HEARTS"]}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "person", "type": {"type": "record", "name": "Person", "fields": [{"name": "name", "type": "string"}]}},
    ],
}


def avro():
    import datetime
    import decimal

    name = topic("avro")
    at = datetime.datetime(2024, 5, 6, 7, 8, 9, 123000, datetime.timezone.utc)
    order = {"id": 7, "price": decimal.Decimal("12.30"), "at": at, "suit": "HEARTS", "note": None, "tags": ["a", "b"], "person": {"name": "n"}}
    write(name, AvroSerializer(registry, json.dumps(ORDER)), [order, {**order, "id": 8, "note": "x"}])
    # A later writer adds a field: the same stream reads both.
    more = {**ORDER, "fields": ORDER["fields"] + [{"name": "more", "type": "int", "default": 0}]}
    write(name, AvroSerializer(registry, json.dumps(more)), [{**order, "id": 9, "more": 5}])
    assert len(registry.get_versions(f"{name}-value")) == 2
    out = stream("AVRO", name, "AVRO")
    found = rows(f"SELECT ID, PRICE, SUIT, NOTE, TAGS, PERSON->NAME, MORE FROM AVRO_{RUN};")
    assert found[0] == [7, 12.3, "HEARTS", None, ["a", "b"], "n", None], found
    assert [row[0] for row in found] == [7, 8, 9] and found[1][3] == "x" and found[2][6] == 5, found
    values = read(out, AvroDeserializer(registry), 3)
    first = values[0]
    assert (first["ID"], first["PRICE"], first["AT"], first["PERSON"]) == (7, decimal.Decimal("12.30"), at, {"NAME": "n"}), first
    latest = registry.get_latest_version(f"{out}-value")
    assert json.loads(latest.schema.schema_str)["name"] == "KsqlDataSourceSchema"
    say("avro")


def json_schema():
    name = topic("json")
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Thing",
        "type": "object",
        "properties": {"n": {"type": "integer"}, "x": {"type": "number"}, "words": {"type": "array", "items": {"type": "string"}}},
        "required": ["n"],
    }
    things = [{"n": 1, "x": 0.5, "words": ["a"]}, {"n": 2, "x": 1.0, "words": []}]
    write(name, JSONSerializer(json.dumps(schema), registry), things)
    out = stream("JSON", name, "JSON_SR")
    assert rows(f"SELECT N, X, WORDS FROM JSON_{RUN};") == [[1, 0.5, ["a"]], [2, 1.0, []]]
    latest = registry.get_latest_version(f"{out}-value").schema.schema_str
    assert read(out, JSONDeserializer(latest), 2)[0] == {"N": 1, "X": 0.5, "WORDS": ["a"]}
    say("json")


def protobuf():
    file = descriptor_pb2.FileDescriptorProto(name=f"thing_{RUN}.proto", package="example", syntax="proto3")
    message = file.message_type.add(name="Thing")
    kinds = descriptor_pb2.FieldDescriptorProto
    for i, (label, kind, repeated) in enumerate(
        [("id", kinds.TYPE_INT64, False), ("name", kinds.TYPE_STRING, False), ("marks", kinds.TYPE_SINT32, True)]
    ):
        label_ = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        message.field.add(name=label, number=i + 1, type=kind, label=label_)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    thing = message_factory.GetMessageClass(pool.FindMessageTypeByName("example.Thing"))
    name = topic("proto")
    write(name, ProtobufSerializer(thing, registry, {"use.deprecated.format": False}), [thing(id=5, name="x", marks=[-1, 2]), thing()])
    out = stream("PROTO", name, "PROTOBUF")
    assert rows(f"SELECT ID, NAME, MARKS FROM PROTO_{RUN};") == [[5, "x", [-1, 2]], [0, "", []]]
    made = registry.get_latest_version(f"{out}-value").schema
    assert made.schema_type == "PROTOBUF" and "message ConnectDefault1" in made.schema_str, made.schema_str
    written = descriptor_pb2.FileDescriptorProto(name=f"out_{RUN}.proto", syntax="proto3")
    message = written.message_type.add(name="ConnectDefault1")
    for i, (label, kind, repeated) in enumerate(
        [("ID", kinds.TYPE_INT64, False), ("NAME", kinds.TYPE_STRING, False), ("MARKS", kinds.TYPE_INT32, True)]
    ):
        label_ = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        message.field.add(name=label, number=i + 1, type=kind, label=label_)
    pool.Add(written)
    result = message_factory.GetMessageClass(pool.FindMessageTypeByName("ConnectDefault1"))
    first = read(out, ProtobufDeserializer(result, {"use.deprecated.format": False}), 2)[0]
    assert (first.ID, first.NAME, list(first.MARKS)) == (5, "x", [-1, 2]), first
    say("protobuf")


def refused(call, status, code):
    try:
        call()
    except SchemaRegistryError as e:
        assert (e.http_status_code, e.error_code) == (status, code), e
        return
    raise AssertionError(f"not refused with {code}")


def rest():
    subject = f"rest_{RUN}-value"
    first = Schema('{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}', "AVRO")
    wrong = Schema('{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}', "AVRO")
    refused(lambda: registry.get_latest_version(subject), 404, 40401)
    refused(lambda: registry.get_schema(987654), 404, 40403)
    refused(lambda: registry.register_schema(subject, Schema("{", "AVRO")), 422, 42201)
    one = registry.register_schema(subject, first)
    assert registry.register_schema(subject, first) == one == registry.lookup_schema(subject, first).schema_id
    assert not registry.test_compatibility(subject, wrong)
    refused(lambda: registry.register_schema(subject, wrong), 409, 409)
    assert registry.set_compatibility(subject, "NONE")["compatibility"] == "NONE"
    assert registry.get_compatibility(subject) == "NONE" and registry.get_compatibility() == "BACKWARD"
    registry.register_schema(subject, wrong)
    assert registry.get_versions(subject) == [1, 2] and subject in registry.get_subjects()
    refused(lambda: registry.get_version(subject, 3), 404, 40402)
    assert registry.delete_version(subject, 1) == 1
    assert registry.delete_subject(subject) == [2]
    assert registry.delete_subject(subject, permanent=True) == [1, 2]
    refused(lambda: registry.get_versions(subject), 404, 40401)
    base, user = f"base_{RUN}", f"user_{RUN}"
    registry.register_schema(base, Schema('{"type":"record","name":"Base","fields":[{"name":"x","type":"int"}]}', "AVRO"))
    outer = '{"type":"record","name":"User","fields":[{"name":"base","type":"Base"}]}'
    references = [SchemaReference(name="Base", subject=base, version=1)]
    made = registry.register_schema(user, Schema(outer, "AVRO", references))
    assert registry.get_schema(made).references[0].subject == base
    say("rest")


avro()
json_schema()
protobuf()
rest()
