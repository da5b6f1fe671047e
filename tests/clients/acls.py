"""Rights and quotas by confluent-kafka and kafka-python: acls.py ADMIN USERS USER PASSWORD.

ADMIN is a listener where everything is allowed, USERS one where USER proves itself with SCRAM-SHA-256.
"""

import sys
import time
import uuid

import confluent_kafka as ck
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern
from kafka.admin import ACLResourcePatternType, ResourcePatternFilter
from kafka.admin import ResourceType as PyResourceType

ADMIN, USERS, USER, PASSWORD = sys.argv[1:5]
RUN = uuid.uuid4().hex[:8]
OPEN, CLOSED = f"open-{RUN}", f"closed-{RUN}"


def say(text):
    print(f"acls: {text}", flush=True)


def as_user(**more):
    return {
        "bootstrap.servers": USERS,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        **more,
    }


def allow(admin, kind, name, operation, pattern=ResourcePatternType.LITERAL, permission=AclPermissionType.ALLOW):
    binding = AclBinding(kind, name, pattern, f"User:{USER}", "*", operation, permission)
    for made in admin.create_acls([binding]).values():
        made.result(20)


def error_of(future):
    try:
        future.result(20)
    except ck.KafkaException as e:
        return e.args[0].code()
    return 0


def produce(topic, **config):
    """The codes of three deliveries."""
    codes = []
    producer = ck.Producer(as_user(**config))
    for i in range(3):
        producer.produce(topic, key=str(i), value=b"v", on_delivery=lambda e, _: codes.append(e.code() if e else 0))
    assert producer.flush(30) == 0, "deliveries are missing"
    return codes


def consume(topic, group, count):
    """Values read, or the code of the error that came first."""
    consumer = ck.Consumer(as_user(**{"group.id": group, "auto.offset.reset": "earliest"}))
    consumer.subscribe([topic])
    got, until = [], time.time() + 60
    try:
        while len(got) < count and time.time() < until:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error():
                return message.error().code()
            got.append(message.value())
    finally:
        consumer.close()
    return len(got)


def rights(admin):
    for topic in (OPEN, CLOSED):
        admin.create_topics([NewTopic(topic, 1)])[topic].result(20)
    denied = ck.KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert produce(OPEN) == [denied] * 3, "without any right"
    allow(admin, ResourceType.TOPIC, "open-", AclOperation.WRITE, ResourcePatternType.PREFIXED)
    assert produce(OPEN) == [0, 0, 0]
    assert produce(OPEN, **{"enable.idempotence": True}) == [0, 0, 0]
    assert produce(CLOSED) == [denied] * 3
    say("producers, with a prefix, idempotent too")

    assert consume(OPEN, f"g-{RUN}", 6) in (denied, ck.KafkaError.GROUP_AUTHORIZATION_FAILED)
    allow(admin, ResourceType.TOPIC, OPEN, AclOperation.READ)
    assert consume(OPEN, f"g-{RUN}", 6) == ck.KafkaError.GROUP_AUTHORIZATION_FAILED
    allow(admin, ResourceType.GROUP, f"g-{RUN}", AclOperation.READ)
    assert consume(OPEN, f"g-{RUN}", 6) == 6
    say("a consumer, with topic and group")

    user = AdminClient(as_user())
    seen = user.list_topics(timeout=20).topics
    assert OPEN in seen and CLOSED not in seen, seen
    named = user.list_topics(CLOSED, timeout=20).topics[CLOSED]
    assert named.error.code() == denied and not named.partitions
    assert error_of(user.create_topics([NewTopic(f"new-{RUN}", 1)])[f"new-{RUN}"]) == denied
    assert error_of(user.delete_topics([OPEN])[OPEN]) == denied
    # Not describe_acls: librdkafka reads the refusal, and gives an empty list.
    mine = AclBinding(
        ResourceType.TOPIC,
        CLOSED,
        ResourcePatternType.LITERAL,
        f"User:{USER}",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )
    for made in user.create_acls([mine]).values():
        assert error_of(made) == ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED
    say("what a user sees and may not change")

    transactional = ck.Producer(as_user(**{"transactional.id": f"x-{RUN}"}))
    try:
        transactional.init_transactions(20)
        raise AssertionError("a transactional id without a right")
    except ck.KafkaException as e:
        assert e.args[0].code() == ck.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, e
    allow(admin, ResourceType.TRANSACTIONAL_ID, f"x-{RUN}", AclOperation.WRITE)
    transactional = ck.Producer(as_user(**{"transactional.id": f"x-{RUN}"}))
    transactional.init_transactions(20)
    transactional.begin_transaction()
    transactional.produce(OPEN, value=b"t")
    transactional.commit_transaction(20)
    say("transactional ids")

    allow(admin, ResourceType.TOPIC, "*", AclOperation.WRITE, permission=AclPermissionType.DENY)
    assert produce(OPEN) == [denied] * 3, "a denial wins"
    found = admin.describe_acls(anything()).result(20)
    assert len(found) == 5, found
    gone = admin.delete_acls([anything()])
    assert sum(len(done.result(20)) for done in gone.values()) == 5
    assert not admin.describe_acls(anything()).result(20)
    say("a denial wins; describe and delete by confluent-kafka")


def anything():
    return AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def by_kafka_python():
    admin = KafkaAdminClient(bootstrap_servers=ADMIN)
    acl = ACL(
        principal="User:bob",
        host="*",
        operation=ACLOperation.READ,
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(PyResourceType.TOPIC, f"py-{RUN}"),
    )
    made = admin.create_acls([acl])
    assert len(made["succeeded"]) == 1 and not made["failed"], made
    wanted = ACLFilter(
        principal=None,
        host=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ANY,
        resource_pattern=ResourcePatternFilter(PyResourceType.TOPIC, f"py-{RUN}", ACLResourcePatternType.LITERAL),
    )
    found, error = admin.describe_acls(wanted)
    assert [a.principal for a in found] == ["User:bob"], (found, error)
    gone = admin.delete_acls([wanted])
    assert len(gone[0][1]) == 1, gone
    assert admin.describe_acls(wanted)[0] == []
    admin.close()
    say("create, describe and delete by kafka-python")


def main():
    admin = AdminClient({"bootstrap.servers": ADMIN})
    rights(admin)
    by_kafka_python()
    say("ok")


main()
