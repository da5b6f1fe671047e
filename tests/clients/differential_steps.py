"""What differential.py asks: the steps, API by API. Each leaves both servers alike for the next."""

import time

# About a day ago: older than any lag, younger than a segment and its retention.
NOW = int(time.time()) // 1000 * 1_000_000 - 86_400_000

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
NOBODY = "7777777777777777777777"  # an id that no topic has


def all_steps(t):
    versions(t)
    create_topics(t)
    metadata(t)
    produce_and_fetch(t)
    offsets_of_log(t)
    configs(t)
    partitions(t)
    log_dirs(t)
    classic_groups(t)
    consumer_groups(t)
    producers_and_transactions(t)
    groups_of_transactions(t)
    sessions_and_new_topics(t)
    acls(t)
    quotas_and_users(t)
    cluster(t)
    delete(t)


def versions(t):
    common = {}

    def ranges(answer):
        return {"apis": {k["apiKey"]: (k["minVersion"], k["maxVersion"]) for k in answer["apiKeys"]}}

    t.ask("what is there", "API_VERSIONS", 4, {"clientSoftwareName": "x", "clientSoftwareVersion": "1"}, keep=ranges)
    for key, api in KEYS.items():
        both = [t.kept[server]["apis"].get(key) for server in t.kept]
        if None not in both:
            common[api] = (max(low for low, _ in both), min(high for _, high in both))
    t.common = common
    t.common["PRODUCE"] = (3, t.common["PRODUCE"][1])
    t.every("what is there", "API_VERSIONS", {"clientSoftwareName": "x", "clientSoftwareVersion": "1"}, versions=range(0, 4))
    for name in ("", "-x", "a b", "x_y"):
        t.ask(f"software '{name}'", "API_VERSIONS", 3, {"clientSoftwareName": name, "clientSoftwareVersion": "1"})
    t.ask("handshake on a plain listener", "SASL_HANDSHAKE", 1, {"mechanism": "PLAIN"}, connection="sasl")
    t.ask("authenticate on a plain listener", "SASL_AUTHENTICATE", 2, {"authBytes": "x"}, connection="sasl2")


def topic(name, partitions=1, replicas=1, **more):
    return {"name": name, "numPartitions": partitions, "replicationFactor": replicas, **more}


def create_topics(t):
    def ask(name, *topics, versions=None, validate=False):
        t.every(name, "CREATE_TOPICS", lambda _: {"topics": list(topics), "timeoutMs": 10000, "validateOnly": validate}, versions)

    for version in range(2, 8):
        ask("plain", topic(f"plain-{version}", 2), versions=[version])
    ask("there already", topic("plain-2"))
    ask("only looked at", topic("not-made", 3), validate=True)
    ask("looked at, there already", topic("plain-2"), validate=True)
    ask("twice", topic("twice"), topic("other", 0), topic("twice", 5))
    ask("nothing")
    for name in ("", ".", "..", "a b", "a/b", "x" * 250, "ä"):
        ask(f"named '{name[:5]}'", topic(name), versions=[2, 7])
    ask("longest name", topic("y" * 249), versions=[7])
    ask("clashing name", topic("with.dot"), versions=[7])
    ask("clashing name 2", topic("with_dot"), versions=[7])
    ask("defaults", topic("defaults", -1, -1), versions=[7])
    for partitions, replicas in ((0, 1), (-2, 1), (1, 0), (1, -2), (1, 2), (-1, 2), (20000, 1)):
        ask(f"{partitions} partitions, {replicas} replicas", topic("not-made", partitions, replicas), versions=[2, 7], validate=True)
    for key, value in (("cleanup.policy", "compact"), ("cleanup.policy", "shred"), ("cleanup.policy", ""), ("cleanup.policy", "compact,delete"),
                       ("cleanup.policy", "compact,compact"), ("retention.ms", "abc"), ("retention.ms", "-2"), ("retention.ms", "-1"), ("retention.ms", " 5 "),
                       ("retention.ms", None), ("no.such", "1"), ("max.message.bytes", "-1"), ("min.insync.replicas", "0"), ("min.insync.replicas", "2"),
                       ("compression.type", "none"), ("compression.type", "zstd"), ("compression.type", "ZSTD"), ("segment.bytes", "13"), ("segment.bytes", "1048576"), ("segment.bytes", "1048575"),
                       ("preallocate", "yes"), ("preallocate", "TRUE"), ("preallocate", "true"), ("message.timestamp.type", "createtime"), ("message.timestamp.type", "LogAppendTime"),
                       ("min.cleanable.dirty.ratio", "1.1"), ("min.cleanable.dirty.ratio", "1"), ("remote.storage.enable", "true"), ("remote.storage.enable", "false"),
                       ("leader.replication.throttled.replicas", "0:1"), ("leader.replication.throttled.replicas", "x"), ("leader.replication.throttled.replicas", "*"),
                       ("message.format.version", "3.0"), ("message.downconversion.enable", "false"), ("message.timestamp.difference.max.ms", "5"),
                       ("message.timestamp.before.max.ms", "5"), ("compression.gzip.level", "0"), ("compression.gzip.level", "10"), ("compression.lz4.level", "0"), ("compression.zstd.level", "23"),
                       ("segment.ms", "0"), ("segment.jitter.ms", "-1"), ("local.retention.ms", "5"), ("unclean.leader.election.enable", "true"), ("index.interval.bytes", "-1"),
                       ("flush.messages", "0"), ("flush.ms", "0"), ("file.delete.delay.ms", "-1"), ("delete.retention.ms", "-1"), ("max.compaction.lag.ms", "0"), ("segment.index.bytes", "3"),
                       ("internal.segment.bytes", "1000")):
        ask(f"{key}={value}", topic("not-made", configs=[{"name": key, "value": value}]), versions=[7], validate=True)
    ask("compaction lags crossed", topic("not-made", configs=[{"name": "min.compaction.lag.ms", "value": "10"}, {"name": "max.compaction.lag.ms", "value": "5"}]),
        versions=[7], validate=True)
    ask("local retention above all", topic("not-made", configs=[{"name": "local.retention.bytes", "value": "10"}, {"name": "retention.bytes", "value": "5"}]),
        versions=[7], validate=True)
    ask("a setting twice", topic("not-made", configs=[{"name": "retention.ms", "value": "10"}, {"name": "retention.ms", "value": "5"}]), versions=[7], validate=True)
    def assigned(name, *assignments, partitions=-1, replicas=-1):
        all_ = [{"partitionIndex": index, "brokerIds": brokers} for index, brokers in assignments]
        ask(name, topic("not-made", partitions, replicas, assignments=all_), versions=[2, 7], validate=True)
    assigned("assigned", (0, [1]), (1, [1]))
    assigned("assigned to nobody", (0, []))
    assigned("assigned to a stranger", (0, [2]))
    assigned("assigned twice", (0, [1, 1]))
    assigned("assigned with a gap", (0, [1]), (2, [1]))
    assigned("assigned the same", (0, [1]), (0, [1]))
    assigned("assigned and counted", (0, [1]), partitions=1, replicas=1)
    assigned("assigned unevenly", (0, [1]), (1, [1, 2]))
    for name, more in (("t", {}), ("compact", {"cleanup.policy": "compact"}), ("both", {"cleanup.policy": "compact,delete", "retention.ms": "360000000"}),
                       ("append-time", {"message.timestamp.type": "LogAppendTime"}), ("small", {"max.message.bytes": "200"}), ("two-replicas", {"min.insync.replicas": "2"}),
                       *((f"to-{codec}", {"compression.type": codec}) for codec in ("producer", "uncompressed", "gzip", "zstd"))):
        ask("made", topic(name, 3 if name == "t" else 1, configs=[{"name": k, "value": v} for k, v in more.items()]), versions=[7])
    t.ask("ids", "METADATA", 12, {"topics": [{"name": "t"}, {"name": "compact"}]},
          keep=lambda a: {x["name"]: x["topicId"] for x in a["topics"]})


def metadata(t):
    both = {"includeClusterAuthorizedOperations": True, "includeTopicAuthorizedOperations": True}
    for allow in (False, True):
        t.every(f"a topic, creating {allow}", "METADATA", {"topics": [{"name": "t"}], "allowAutoTopicCreation": allow})
    t.every("none", "METADATA", {"topics": []}, versions=range(1, 14))
    t.every("all", "METADATA", {"topics": None}, versions=[1, 4, 9, 12, 13])
    t.every("operations", "METADATA", {"topics": [{"name": "t"}], **both}, versions=range(8, 14))
    t.every("unknown", "METADATA", {"topics": [{"name": "nowhere"}], "allowAutoTopicCreation": False}, versions=range(4, 14))
    for name in ("a b", "", "."):
        t.every(f"named '{name}'", "METADATA", {"topics": [{"name": name}], "allowAutoTopicCreation": False}, versions=[4, 9, 12])
    t.every("by id", "METADATA", lambda k: {"topics": [{"name": None, "topicId": k["t"]}]}, versions=[12, 13])
    t.every("by an unknown id", "METADATA", {"topics": [{"name": None, "topicId": NOBODY}]}, versions=[12, 13])
    t.every("the same twice", "METADATA", {"topics": [{"name": "t"}, {"name": "t"}]}, versions=[4, 12])
    t.ask("cursor", "DESCRIBE_TOPIC_PARTITIONS", 0, {"topics": [{"name": "t"}], "responsePartitionLimit": 2})
    t.ask("cursor", "DESCRIBE_TOPIC_PARTITIONS", 0, {"topics": [{"name": "t"}], "cursor": {"topicName": "t", "partitionIndex": 2}})
    t.ask("cursor", "DESCRIBE_TOPIC_PARTITIONS", 0, {"topics": [{"name": "t"}, {"name": "nowhere"}, {"name": "a b"}]})
    t.ask("a cursor before all", "DESCRIBE_TOPIC_PARTITIONS", 0, {"topics": [{"name": "t"}], "cursor": {"topicName": "t", "partitionIndex": -1}})
    t.ask("a limit of none", "DESCRIBE_TOPIC_PARTITIONS", 0, {"topics": [{"name": "t"}], "responsePartitionLimit": 0})


def size_aside(answer):
    """Codecs of two makers do not come to the same size."""
    for topic in answer["responses"]:
        for partition in topic["partitions"]:
            partition["recordsSizeInBytes"] = partition["recordsSizeInBytes"] > 0
    return answer


def produce_and_fetch(t):
    def produce(name, topic, records, versions=(9,), index=0, acks=-1, **more):
        for version in versions:
            t.ask(name, "PRODUCE", version, lambda k: {"acks": acks, "timeoutMs": 5000, **more, "topicData": [
                {"name": topic, "topicId": k.get(topic, NOBODY), "partitionData": [{"index": index, "records": records}]}]})
    produce("values", "t", {"values": ["a=1", "b=2"], "time": NOW}, versions=range(3, 14))
    produce("values", "t", {"values": ["a=1"] * 3, "time": NOW + 1000}, index=1)
    produce("by the log's time", "append-time", {"values": ["a=1", "b=2"], "time": 5})
    produce("unknown topic", "nowhere", {"values": ["a=1"]}, versions=(3, 9, 13))
    produce("unknown partition", "t", {"values": ["a=1"]}, index=9, versions=(3, 9, 13))
    produce("negative partition", "t", {"values": ["a=1"]}, index=-1)
    produce("keyless on compacted", "compact", {"values": ["a"]}, versions=(7, 9))
    produce("keyed on compacted", "compact", {"values": ["a=1", "a=2"], "time": NOW})
    produce("too large", "small", {"values": ["a=" + "x" * 300]}, versions=(7, 9))
    produce("too few replicas", "two-replicas", {"values": ["a=1"]})
    produce("too few replicas, acks 1", "two-replicas", {"values": ["a=1"]}, acks=1)
    produce("acks 2", "t", {"values": ["a=1"]}, acks=2)
    produce("in the future", "t", {"values": ["a=1"], "time": 95_000_000_000_000}, versions=(7, 9))
    produce("no records", "t", {"values": []}, versions=(3, 9, 13))
    t.ask("nothing", "PRODUCE", 9, {"acks": -1, "timeoutMs": 100})
    t.ask("the same partition twice", "PRODUCE", 9, {"acks": -1, "timeoutMs": 100, "topicData": [{"name": "t", "partitionData": [
        {"index": 2, "records": {"values": ["a=1"], "time": NOW + 2000}}, {"index": 2, "records": {"values": ["b=2"], "time": NOW + 2000}}]}]})

    def fetch(name, topic, offset, versions=(4, 11, 12, 13, 17), index=0, id=None, **more):
        for version in versions:
            partition = {"partition": index, "fetchOffset": offset, "partitionMaxBytes": 1 << 20, **more.get("place", {})}
            rest = {k: v for k, v in more.items() if k != "place"}
            t.ask(name, "FETCH", version, lambda k: {"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "sessionEpoch": -1, **rest, "topics": [
                {"topic": topic, "topicId": id or k.get(topic, NOBODY), "partitions": [partition]}]})
    fetch("all", "t", 0, versions=range(4, 19))
    # Before version 7 zstd may not be sent, whatever the topic keeps; whoever fetches is sent what is kept.
    for kept in ("producer", "uncompressed", "gzip", "zstd"):
        for codec in ("gzip", "snappy", "lz4", "zstd"):
            produce(f"{codec} kept as", f"to-{kept}", {"values": ["a=" + "x" * 300, "b=2"], "time": NOW, "codec": codec}, versions=(6, 7, 12))
        for offset in (0, 2, 20):
            for version in (9, 10):
                t.ask(f"kept as {kept}, {offset}", "FETCH", version, {"maxBytes": 1 << 20, "sessionEpoch": -1, "topics": [
                    {"topic": f"to-{kept}", "partitions": [{"fetchOffset": offset, "partitionMaxBytes": 1 << 20}]}]}, normal=size_aside)
    fetch("committed", "t", 0, isolationLevel=1)
    fetch("in a batch", "t", 1)
    fetch("at the end", "t", 22)
    fetch("past the end", "t", 23)
    fetch("before the beginning", "t", -1)
    fetch("unknown topic", "nowhere", 0)
    fetch("unknown partition", "t", 0, index=9)
    fetch("a later epoch", "t", 0, place={"currentLeaderEpoch": 1000000}, versions=(9, 12, 13))
    fetch("one byte", "t", 0, maxBytes=1)
    t.ask("empty", "FETCH", 12, {"maxWaitMs": 0, "sessionEpoch": -1})
    t.ask("unknown session", "FETCH", 12, {"maxWaitMs": 0, "sessionId": 12345, "sessionEpoch": 3})
    t.ask("new session", "FETCH", 12, {"maxWaitMs": 0, "sessionId": 0, "sessionEpoch": 0, "topics": [
        {"topic": "t", "partitions": [{"partition": 0, "fetchOffset": 0, "partitionMaxBytes": 1000}]}]}, keep=lambda a: {"session": a["sessionId"]},
        normal=lambda a: {**a, "sessionId": a["sessionId"] > 0})
    plain = lambda a: {**a, "sessionId": a["sessionId"] > 0}
    t.ask("session goes on", "FETCH", 12, lambda k: {"maxWaitMs": 0, "sessionId": k["session"], "sessionEpoch": 1}, normal=plain)
    t.ask("session, wrong epoch", "FETCH", 12, lambda k: {"maxWaitMs": 0, "sessionId": k["session"], "sessionEpoch": 7}, normal=plain)
    t.ask("session ends", "FETCH", 12, lambda k: {"maxWaitMs": 0, "sessionId": k["session"], "sessionEpoch": -1}, normal=plain)
    t.ask("ended session", "FETCH", 12, lambda k: {"maxWaitMs": 0, "sessionId": k["session"], "sessionEpoch": 2}, normal=plain)


def offsets_of_log(t):
    def at_(at):
        return f"at {at}" if at <= 0 else f"at a time, {at - NOW}"

    def listed(name, times, versions=None, topic="t", index=0, **more):
        t.every(name, "LIST_OFFSETS", lambda _: {"replicaId": -1, "topics": [{"name": topic, "partitions": [
            {"partitionIndex": index, "timestamp": at, **more} for at in times]}]}, versions)
    for at in (-1, -2, 0, NOW + 1, NOW + 2, NOW + 3_000_000_000):
        listed(at_(at), [at])
    for at in (-3, -4, -5, -6, -7):
        listed(at_(at), [at])
    listed("unknown partition", [-1], index=9)
    listed("unknown topic", [-1], topic="nowhere")
    listed("a later epoch", [-1], versions=range(4, 12), currentLeaderEpoch=1000000)
    listed("the same twice", [-1, -2], versions=[1, 7])
    for at in (-1, -2, -3):
        listed(f"empty log {at_(at)}", [at], versions=[7], topic="both")
    t.ask("epoch now", "LIST_OFFSETS", 7, {"replicaId": -1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "timestamp": -1}]}]},
          keep=lambda a: {"epoch": a["topics"][0]["partitions"][0]["leaderEpoch"]})
    for name, of in (("current", lambda k: k["epoch"]), ("later", lambda k: k["epoch"] + 1), ("none", lambda k: -1)):
        t.every(f"{name} epoch", "OFFSET_FOR_LEADER_EPOCH", lambda k: {"replicaId": -1, "topics": [{"topic": "t", "partitions": [{"partition": 0, "leaderEpoch": of(k)}]}]})
    t.every("the epoch of an empty log", "OFFSET_FOR_LEADER_EPOCH", lambda k: {"replicaId": -1, "topics": [{"topic": "both", "partitions": [{"partition": 0, "leaderEpoch": k["epoch"]}]}]})
    t.every("a current epoch that is later", "OFFSET_FOR_LEADER_EPOCH", {"replicaId": -1, "topics": [{"topic": "t", "partitions": [{"partition": 0, "leaderEpoch": 0, "currentLeaderEpoch": 1000000}]}]})
    t.every("unknown partitions", "OFFSET_FOR_LEADER_EPOCH", {"replicaId": -1, "topics": [
        {"topic": "t", "partitions": [{"partition": 9}]}, {"topic": "nowhere", "partitions": [{"partition": 0}]}]})

    def deleted(name, offset, versions=None, topic="t", index=1):
        t.every(name, "DELETE_RECORDS", {"timeoutMs": 5000, "topics": [{"name": topic, "partitions": [{"partitionIndex": index, "offset": offset}]}]}, versions)
    deleted("two", 2)
    deleted("fewer", 1)
    deleted("too many", 4)
    deleted("all", -1)
    deleted("negative", -2)
    deleted("unknown topic", 0, topic="nowhere")
    deleted("unknown partition", 0, index=9)
    deleted("compacted", 1, topic="compact", index=0)
    listed("after deletion", [-2], index=1)
    t.ask("deleted", "FETCH", 12, {"maxWaitMs": 0, "maxBytes": 1000, "sessionEpoch": -1, "topics": [{"topic": "t", "partitions": [
        {"partition": 1, "fetchOffset": 0, "partitionMaxBytes": 1000}]}]})


def configs(t):
    def described(name, kind, resource, keys=None, versions=None, **more):
        t.every(name, "DESCRIBE_CONFIGS", {"resources": [{"resourceType": kind, "resourceName": resource, "configurationKeys": keys}], **more}, versions)
    described("topic", TOPIC, "t")
    described("topic, synonyms and documentation", TOPIC, "t", includeSynonyms=True, includeDocumentation=True)
    described("compacted topic", TOPIC, "compact", includeSynonyms=True)
    described("some", TOPIC, "t", ["retention.ms", "no.such"])
    described("none", TOPIC, "t", [])
    described("unknown topic", TOPIC, "nowhere")
    described("empty topic", TOPIC, "")
    described("bad topic", TOPIC, "a b")
    for kind, resource in ((0, ""), (1, "x"), (3, "x"), (7, "x"), (CLIENT_METRICS, "x"), (CLIENT_METRICS, ""), (BROKER, "9"), (BROKER, "x"), (LOGGER, "1"), (LOGGER, "9"), (LOGGER, "")):
        described(f"type {kind} of '{resource}'", kind, resource, versions=[1, 4])
    described("broker", BROKER, "1", BROKER_KEYS, versions=[4], includeSynonyms=True)
    described("all brokers", BROKER, "", versions=[4], includeSynonyms=True)
    t.ask("two at once", "DESCRIBE_CONFIGS", 4, {"resources": [{"resourceType": TOPIC, "resourceName": name, "configurationKeys": ["retention.ms"]} for name in ("t", "t", "nowhere")]})

    def changed(name, kind, resource, entries, versions=None, validate=False):
        t.every(name, "INCREMENTAL_ALTER_CONFIGS", {"validateOnly": validate, "resources": [{"resourceType": kind, "resourceName": resource, "configs": [
            {"name": key, "configOperation": operation, "value": value} for key, operation, value in entries]}]}, versions)
    SET, DELETE, APPEND, SUBTRACT = range(4)
    show = lambda name: described(name, TOPIC, "t", ["retention.ms", "cleanup.policy", "max.message.bytes", "leader.replication.throttled.replicas"], versions=[4], includeSynonyms=True)
    changed("set", TOPIC, "t", [("retention.ms", SET, "1000000000")])
    show("after set")
    changed("only looked at", TOPIC, "t", [("retention.ms", SET, "2000000000")], validate=True)
    show("after looking")
    changed("appended", TOPIC, "t", [("cleanup.policy", APPEND, "compact")])
    show("after append")
    changed("subtracted", TOPIC, "t", [("cleanup.policy", SUBTRACT, "compact")])
    show("after subtract")
    changed("subtracted to nothing", TOPIC, "t", [("cleanup.policy", SUBTRACT, "delete")], validate=True)
    changed("appended to a number", TOPIC, "t", [("retention.ms", APPEND, "5")])
    changed("throttled", TOPIC, "t", [("leader.replication.throttled.replicas", APPEND, "0:1")])
    show("after throttled")
    changed("throttled more", TOPIC, "t", [("leader.replication.throttled.replicas", APPEND, "1:1")])
    show("after throttled more")
    changed("deleted", TOPIC, "t", [("retention.ms", DELETE, None), ("leader.replication.throttled.replicas", DELETE, None), ("cleanup.policy", DELETE, None)])
    show("after delete")
    changed("deleted again", TOPIC, "t", [("retention.ms", DELETE, None)])
    changed("deleted, unknown", TOPIC, "t", [("no.such", DELETE, None)])
    changed("set, unknown", TOPIC, "t", [("no.such", SET, "1")])
    changed("set to nothing", TOPIC, "t", [("retention.ms", SET, None)])
    changed("set to empty", TOPIC, "t", [("retention.ms", SET, "")])
    changed("set badly", TOPIC, "t", [("retention.ms", SET, "x")])
    changed("unknown operation", TOPIC, "t", [("retention.ms", 7, "1")])
    changed("a key twice", TOPIC, "t", [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)])
    changed("nothing", TOPIC, "t", [])
    changed("unknown topic", TOPIC, "nowhere", [("retention.ms", SET, "1")])
    changed("bad topic", TOPIC, "a b", [("retention.ms", SET, "1")])
    changed("empty topic", TOPIC, "", [("retention.ms", SET, "1")])
    changed("one good, one bad", TOPIC, "t", [("retention.ms", SET, "1"), ("no.such", SET, "1")])
    show("after all those")
    changed("broker", BROKER, "1", [("log.retention.ms", SET, "777777777")])
    described("broker after", BROKER, "1", ["log.retention.ms"], versions=[4], includeSynonyms=True)
    described("topic after broker", TOPIC, "t", ["retention.ms"], versions=[4], includeSynonyms=True)
    changed("all brokers", BROKER, "", [("log.retention.ms", SET, "666666666"), ("message.max.bytes", SET, "2000000")])
    described("all brokers after", BROKER, "", versions=[4], includeSynonyms=True)
    described("broker after all", BROKER, "1", ["log.retention.ms", "message.max.bytes"], versions=[4], includeSynonyms=True)
    described("topic after all brokers", TOPIC, "t", ["retention.ms", "max.message.bytes"], versions=[4], includeSynonyms=True)
    changed("broker, fixed", BROKER, "1", [("node.id", SET, "7")])
    changed("broker, unknown", BROKER, "1", [("no.such", SET, "7")], versions=[1])
    changed("another broker", BROKER, "9", [("log.retention.ms", SET, "7")])
    changed("no broker's number", BROKER, "x", [("log.retention.ms", SET, "7")])
    changed("broker, badly", BROKER, "1", [("log.retention.ms", SET, "x")])
    changed("broker, back", BROKER, "1", [("log.retention.ms", DELETE, None)])
    changed("all brokers, back", BROKER, "", [("log.retention.ms", DELETE, None), ("message.max.bytes", DELETE, None)])
    described("broker, back", BROKER, "1", ["log.retention.ms", "message.max.bytes"], versions=[4], includeSynonyms=True)
    changed("unknown type", 3, "x", [("a", SET, "1")])
    changed("logger", LOGGER, "1", [("root", SET, "INFO")], versions=[1], validate=True)
    t.every("the same twice", "INCREMENTAL_ALTER_CONFIGS", {"resources": [
        {"resourceType": TOPIC, "resourceName": name, "configs": [{"name": "retention.ms", "configOperation": 0, "value": "500000000"}]} for name in ("t", "t", "compact")]})

    def replaced(name, resource, entries, versions=None, kind=TOPIC, validate=False):
        t.every(name, "ALTER_CONFIGS", {"validateOnly": validate, "resources": [{"resourceType": kind, "resourceName": resource, "configs": [
            {"name": key, "value": value} for key, value in entries]}]}, versions)
    replaced("replaced", "t", [("max.message.bytes", "1000000")])
    show("after replaced")
    replaced("replaced by nothing", "t", [])
    show("after replaced by nothing")
    replaced("unknown", "t", [("no.such", "1")])
    replaced("bad", "t", [("retention.ms", "x")])
    replaced("null", "t", [("retention.ms", None)])
    replaced("unknown topic", "nowhere", [("retention.ms", "1")])
    replaced("only looked at", "t", [("retention.ms", "9")], validate=True)
    show("after looked at")
    # Groups have settings of their own.
    described("group", GROUP, "g-config", versions=[1, 4], includeSynonyms=True, includeDocumentation=True)
    changed("group", GROUP, "g-config", [("consumer.session.timeout.ms", SET, "50000"), ("consumer.heartbeat.interval.ms", SET, "6000")])
    described("group after", GROUP, "g-config", versions=[4], includeSynonyms=True)
    for key, value in (("consumer.session.timeout.ms", "1"), ("consumer.session.timeout.ms", "70000"), ("consumer.heartbeat.interval.ms", "1"), ("consumer.heartbeat.interval.ms", "60000"),
                       ("consumer.session.timeout.ms", "x"), ("no.such", "1"), ("consumer.heartbeat.interval.ms", "15000"), ("share.session.timeout.ms", "46000")):
        changed(f"group {key}={value}", GROUP, "g-config", [(key, SET, value)], validate=True)
    changed("nameless group", GROUP, "", [("consumer.session.timeout.ms", SET, "50000")])
    described("nameless group", GROUP, "", versions=[4])
    t.every("resources", "LIST_CONFIG_RESOURCES", {"resourceTypes": [GROUP]}, versions=[1])
    changed("group, back", GROUP, "g-config", [("consumer.session.timeout.ms", DELETE, None), ("consumer.heartbeat.interval.ms", DELETE, None)])
    described("group, back", GROUP, "g-config", versions=[4])
    t.ask("resources, none", "LIST_CONFIG_RESOURCES", 0, {})
    for kinds in ([GROUP], [TOPIC], [BROKER], [CLIENT_METRICS], [LOGGER], [3], [], [TOPIC, 99]):
        t.ask(f"resources {kinds}", "LIST_CONFIG_RESOURCES", 1, {"resourceTypes": kinds})


def partitions(t):
    def grown(name, *topics, versions=None, validate=False):
        t.every(name, "CREATE_PARTITIONS", {"topics": list(topics), "timeoutMs": 5000, "validateOnly": validate}, versions)
    def to(name, count, assignments=None):
        return {"name": name, "count": count, "assignments": assignments and [{"brokerIds": b} for b in assignments]}
    for version in range(0, 4):
        grown("more", to("plain-2", 3 + version), versions=[version])
    grown("as many", to("t", 3))
    grown("fewer", to("t", 2))
    grown("none", to("t", 0))
    grown("negative", to("t", -1))
    grown("unknown", to("nowhere", 5))
    grown("only looked at", to("t", 9), validate=True)
    grown("twice", to("t", 9), to("t", 10), to("nowhere", 4), validate=True)
    grown("assigned", to("t", 5, [[1], [1]]), validate=True)
    grown("assigned too few", to("t", 5, [[1]]), validate=True)
    grown("assigned to a stranger", to("t", 4, [[7]]), validate=True)
    grown("assigned to nobody", to("t", 4, [[]]), validate=True)
    grown("assigned to two", to("t", 4, [[1, 1]]), validate=True)
    grown("too many", to("t", 20000), validate=True)
    grown("nothing")
    t.ask("grown", "METADATA", 12, {"topics": [{"name": "plain-2"}, {"name": "t"}]})

    def elected(name, chosen, kind=0, versions=None):
        t.every(name, "ELECT_LEADERS", {"electionType": kind, "timeoutMs": 5000, "topicPartitions": chosen}, versions)
    elected("preferred", [{"topic": "t", "partitions": [0, 1]}])
    elected("unclean", [{"topic": "t", "partitions": [0]}], kind=1)
    elected("unknown type", [{"topic": "t", "partitions": [0]}], kind=7)
    elected("unknown", [{"topic": "t", "partitions": [9]}, {"topic": "nowhere", "partitions": [0]}])
    elected("all", None)
    elected("nothing", [])

    def moved(name, topics, versions=None, **more):
        t.every(name, "ALTER_PARTITION_REASSIGNMENTS", {"timeoutMs": 5000, "topics": topics, **more}, versions)
    moved("to where it is", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": [1]}]}])
    moved("to a stranger", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": [9]}]}])
    moved("to nobody", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": []}]}])
    moved("twice there", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": [1, 1]}]}])
    moved("negative", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": [-1]}]}])
    moved("cancelled", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": None}]}])
    moved("unknown", [{"name": "t", "partitions": [{"partitionIndex": 9, "replicas": [1]}]}, {"name": "nowhere", "partitions": [{"partitionIndex": 0, "replicas": [1]}]}])
    moved("more replicas", [{"name": "t", "partitions": [{"partitionIndex": 0, "replicas": [1, 2]}]}], versions=[1], allowReplicationFactorChange=False)
    moved("nothing", [])
    t.ask("all", "LIST_PARTITION_REASSIGNMENTS", 0, {"timeoutMs": 5000, "topics": None})
    t.ask("some", "LIST_PARTITION_REASSIGNMENTS", 0, {"timeoutMs": 5000, "topics": [{"name": "t", "partitionIndexes": [0]}, {"name": "nowhere", "partitionIndexes": [0]}]})


def log_dirs(t):
    def once(answer):
        """Topics in the one directory, without Kafka's own."""
        results = [{**r, "topics": [x for x in r["topics"] if not x["name"].startswith("__")]} for r in answer["results"]]
        return {**answer, "results": results}
    t.every("all", "DESCRIBE_LOG_DIRS", {"topics": None}, normal=once)
    t.every("some", "DESCRIBE_LOG_DIRS", {"topics": [{"topic": "t", "partitions": [0, 9]}, {"topic": "nowhere", "partitions": [0]}]}, normal=once)
    t.every("no partitions", "DESCRIBE_LOG_DIRS", {"topics": [{"topic": "t", "partitions": []}]}, normal=once)
    t.every("none", "DESCRIBE_LOG_DIRS", {"topics": []}, normal=once)
    t.ask("which", "DESCRIBE_LOG_DIRS", 4, {"topics": []}, normal=once, keep=lambda a: {"dir": a["results"][0]["logDir"]})
    def move(name, *directories):
        t.every(name, "ALTER_REPLICA_LOG_DIRS", lambda k: {"dirs": [{"path": path or k["dir"], "topics": [{"name": topic, "partitions": indexes}]} for path, topic, indexes in directories]})
    move("where it is", (None, "t", [0]))
    move("unknown partitions", (None, "t", [9, -1]), (None, "nowhere", [0]))
    move("elsewhere", ("/nowhere", "t", [0, 9]), ("/nowhere", "nowhere", [0]))
    move("any", ("any", "t", [0]))
    move("twice", (None, "t", [0, 0]), ("/nowhere", "t", [0]))
    move("twice, the other way", ("/nowhere", "t", [0]), (None, "t", [0]))
    move("no partitions", (None, "t", []))
    move("nothing")


def classic_groups(t):
    # The first question makes Kafka's topic of offsets; until it is there the answer is to come back.
    for key in ("g", "g-config"):
        for _ in range(600):
            if all(t.wire.ask(server=t.addresses[s], connection="", api="FIND_COORDINATOR", version=4, body={"keyType": 0, "coordinatorKeys": [key]})
                   ["coordinators"][0]["errorCode"] == 0 for s in t.addresses):
                break
            time.sleep(0.1)
    def found(name, key, kind):
        t.every(name, "FIND_COORDINATOR", {"key": key, "keyType": kind}, versions=range(1 if kind else 0, 4))
        t.every(name, "FIND_COORDINATOR", {"coordinatorKeys": [key], "keyType": kind}, versions=range(4, 7))
    found("coordinator", "g", 0)
    found("coordinator of nobody", "", 0)
    found("coordinator of a strange kind", "g", 9)
    t.every("coordinators", "FIND_COORDINATOR", {"keyType": 0, "coordinatorKeys": ["g", "h", "g"]}, versions=range(4, 7))
    t.every("no coordinators", "FIND_COORDINATOR", {"keyType": 0, "coordinatorKeys": []}, versions=range(4, 7))
    protocols = [{"name": "range", "metadata": "m"}]
    member = {"groupId": "g", "sessionTimeoutMs": 30000, "rebalanceTimeoutMs": 30000, "protocolType": "consumer", "protocols": protocols}

    def until_loaded(answer):
        return {}
    for _ in range(600):
        codes = [t.wire.ask(server=t.addresses[s], connection="", api="HEARTBEAT", version=4, body={"groupId": "g", "generationId": 1, "memberId": "m"})["errorCode"] for s in t.addresses]
        if all(code == 25 for code in codes):
            break
        time.sleep(0.1)
    t.every("no such group", "HEARTBEAT", {"groupId": "nobody", "generationId": 1, "memberId": "m"})
    for group in ("nobody", ""):
        t.every(f"no group '{group}'", "LEAVE_GROUP", {"groupId": group, "memberId": "m"}, versions=range(0, 3))
        t.every(f"no group '{group}'", "LEAVE_GROUP", {"groupId": group, "members": [{"memberId": "m"}]}, versions=range(3, 6))
    t.every("no such group", "SYNC_GROUP", {"groupId": "nobody", "generationId": 1, "memberId": "m", "protocolType": "consumer", "protocolName": "range"})
    t.every("no such group", "DESCRIBE_GROUPS", {"groups": ["nobody"]})
    t.every("nameless group", "DESCRIBE_GROUPS", {"groups": [""]})
    t.every("no such group", "DELETE_GROUPS", {"groupsNames": ["nobody"]})
    t.every("no such group", "OFFSET_DELETE", {"groupId": "nobody", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0}]}]})
    def fetched(name, group, topics, *others):
        t.every(name, "OFFSET_FETCH", {"groupId": group, "topics": topics}, versions=range(1 if topics else 2, 8))
        t.every(name, "OFFSET_FETCH", {"groups": [{"groupId": group, "topics": topics}, *others]}, versions=[8, 9])
    fetched("no such group", "nobody", [{"name": "t", "partitionIndexes": [0, 77]}, {"name": "nowhere", "partitionIndexes": [0]}])
    fetched("all of no such group", "nobody", None)
    fetched("nameless group", "", None)
    for api, body in (("HEARTBEAT", {"generationId": 1, "memberId": "m"}), ("JOIN_GROUP", {**member}), ("OFFSET_COMMIT", {"topics": [{"name": "t", "partitions": [{"partitionIndex": 0}]}]}), ("DELETE_GROUPS", {"groupsNames": [""]})):
        t.every("nameless", api, {**body, **({} if api == "DELETE_GROUPS" else {"groupId": ""})})
    t.ask("joins unknown", "JOIN_GROUP", 9, {**member, "memberId": "who"})
    t.ask("joins for too short", "JOIN_GROUP", 9, {**member, "sessionTimeoutMs": 1})
    t.ask("joins for too long", "JOIN_GROUP", 9, {**member, "sessionTimeoutMs": 99999999})
    t.ask("joins without protocols", "JOIN_GROUP", 9, {**member, "protocols": []})
    t.ask("joins without a type", "JOIN_GROUP", 9, {**member, "protocolType": ""})
    for version in range(0, 10):
        group = f"g{version}"
        body = {**member, "groupId": group}
        if version >= 4:
            t.ask("joins without id", "JOIN_GROUP", version, body, connection=group, keep=lambda a: {"m": a["memberId"]})
            t.ask("joins", "JOIN_GROUP", version, lambda k: {**body, "memberId": k["m"]}, connection=group, keep=lambda a: {"m": a["memberId"], "e": a["generationId"]})
        else:
            t.ask("joins", "JOIN_GROUP", version, body, connection=group, keep=lambda a: {"m": a["memberId"], "e": a["generationId"]})
        sync = min(version, 5)
        # Kafka shows a group a few milliseconds after it has let the first member in.
        described = {"groups": [group], "includeAuthorizedOperations": version >= 3}
        t.until_alike("DESCRIBE_GROUPS", min(version, 5), described)
        t.ask("described while joining", "DESCRIBE_GROUPS", min(version, 5), described)
        t.ask("syncs with another protocol", "SYNC_GROUP", 5, lambda k: {"groupId": group, "generationId": k["e"], "memberId": k["m"], "protocolType": "consumer", "protocolName": "other"}, connection=group)
        t.ask("syncs", "SYNC_GROUP", sync, lambda k: {"groupId": group, "generationId": k["e"], "memberId": k["m"], **({"protocolType": "consumer", "protocolName": "range"} if version >= 5 else {}),
              "assignments": [{"memberId": k["m"], "assignment": "a"}]}, connection=group)
        t.ask("beats", "HEARTBEAT", min(version, 4), lambda k: {"groupId": group, "generationId": k["e"], "memberId": k["m"]})
        t.ask("beats at another generation", "HEARTBEAT", min(version, 4), lambda k: {"groupId": group, "generationId": k["e"] + 1, "memberId": k["m"]})
        t.ask("a stranger beats", "HEARTBEAT", min(version, 4), lambda k: {"groupId": group, "generationId": k["e"], "memberId": "who"})
        commit = max(min(version, 9), 2)
        def committed(k, **more):
            return {"groupId": group, "generationIdOrMemberEpoch": k["e"], "memberId": k["m"], "topics": [
                {"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 5, "committedMetadata": "meta"}, {"partitionIndex": 1, "committedOffset": 2}, {"partitionIndex": 9, "committedOffset": 1}]},
                {"name": "nowhere", "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}], **more}
        t.ask("commits", "OFFSET_COMMIT", commit, committed)
        t.ask("commits as a stranger", "OFFSET_COMMIT", commit, lambda k: committed(k, memberId="who"))
        t.ask("commits at another generation", "OFFSET_COMMIT", commit, lambda k: committed(k, generationIdOrMemberEpoch=k["e"] + 1))
        t.ask("commits from outside", "OFFSET_COMMIT", commit, lambda k: committed(k, generationIdOrMemberEpoch=-1, memberId=""))
        t.ask("commits too much metadata", "OFFSET_COMMIT", commit, lambda k: committed(k, topics=[{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 1, "committedMetadata": "x" * 5000}]}]))
        t.ask("commits a negative offset", "OFFSET_COMMIT", commit, lambda k: committed(k, topics=[{"name": "t", "partitions": [{"partitionIndex": 2, "committedOffset": -1}]}]))
        t.ask("described", "DESCRIBE_GROUPS", min(version, 6), {"groups": [group], "includeAuthorizedOperations": version >= 3})
        t.ask("deleted while in use", "DELETE_GROUPS", 2, {"groupsNames": [group]})
        t.ask("offsets deleted while in use", "OFFSET_DELETE", 0, {"groupId": group, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0}]}]})
    fetched("what was committed", "g5", [{"name": "t", "partitionIndexes": [0, 1, 2, 9]}])
    fetched("all that was committed", "g5", None, {"groupId": "nobody", "topics": None})
    t.every("as an unknown member", "OFFSET_FETCH", {"groups": [{"groupId": "g5", "memberId": "who", "memberEpoch": 3, "topics": None}]}, versions=[9])
    t.every("nobody's", "OFFSET_FETCH", {"groups": []}, versions=[8, 9])
    t.every("listed", "LIST_GROUPS", {})
    for states in (["Stable"], ["stable"], ["Dead"], ["Nonsense"], ["Empty", "Stable"]):
        t.every(f"in {states}", "LIST_GROUPS", {"statesFilter": states}, versions=[4, 5])
    for types in (["classic"], ["Consumer"], ["nonsense"], ["share"]):
        t.every(f"of {types}", "LIST_GROUPS", {"typesFilter": types}, versions=[5])
    # Static members.
    static = {**member, "groupId": "static", "groupInstanceId": "i1"}
    t.ask("static joins", "JOIN_GROUP", 9, static, connection="static", keep=lambda a: {"s1": a["memberId"], "se": a["generationId"]})
    t.ask("static syncs", "SYNC_GROUP", 5, lambda k: {"groupId": "static", "generationId": k["se"], "memberId": k["s1"], "groupInstanceId": "i1", "protocolType": "consumer", "protocolName": "range",
          "assignments": [{"memberId": k["s1"], "assignment": "a"}]}, connection="static")
    t.ask("static joins again", "JOIN_GROUP", 9, static, connection="static", keep=lambda a: {"s2": a["memberId"], "se": a["generationId"]})
    t.ask("the former beats", "HEARTBEAT", 4, lambda k: {"groupId": "static", "generationId": k["se"], "memberId": k["s1"], "groupInstanceId": "i1"})
    t.ask("the new one beats", "HEARTBEAT", 4, lambda k: {"groupId": "static", "generationId": k["se"], "memberId": k["s2"], "groupInstanceId": "i1"})
    t.ask("unknown instance beats", "HEARTBEAT", 4, lambda k: {"groupId": "static", "generationId": k["se"], "memberId": k["s2"], "groupInstanceId": "i9"})
    t.ask("removed by instance", "LEAVE_GROUP", 5, {"groupId": "static", "members": [{"groupInstanceId": "i1"}, {"groupInstanceId": "i9"}, {"memberId": "who"}]})
    t.ask("emptied", "DESCRIBE_GROUPS", 6, {"groups": ["static"]})
    for version in range(0, 6):
        kept = f"g{version}"
        t.ask("described again", "DESCRIBE_GROUPS", 6, {"groups": [kept]}, keep=lambda a: {"m": a["groups"][0]["members"][0]["memberId"]})
        t.ask("leaves", "LEAVE_GROUP", version, lambda k: {"groupId": kept, **({"memberId": k["m"]} if version < 3 else {"members": [{"memberId": k["m"]}]})})
        t.ask("left", "DESCRIBE_GROUPS", 6, {"groups": [kept]})
        t.ask("commits to an empty one", "OFFSET_COMMIT", 8, {"groupId": kept, "generationIdOrMemberEpoch": -1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 7}]}]})
        t.ask("commits to an empty one with a generation", "OFFSET_COMMIT", 8, {"groupId": kept, "generationIdOrMemberEpoch": 3, "memberId": "m", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 7}]}]})
    t.ask("offsets deleted", "OFFSET_DELETE", 0, {"groupId": "g0", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0}, {"partitionIndex": 2}, {"partitionIndex": 9}]}, {"name": "nowhere", "partitions": [{"partitionIndex": 0}]}]})
    t.ask("offsets left", "OFFSET_FETCH", 8, {"groups": [{"groupId": "g0", "topics": None}]})
    t.ask("commits make a group", "OFFSET_COMMIT", 8, {"groupId": "simple", "generationIdOrMemberEpoch": -1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 7}]}]})
    t.ask("simple group", "DESCRIBE_GROUPS", 6, {"groups": ["simple"]})
    t.ask("with a generation, no group", "OFFSET_COMMIT", 8, {"groupId": "none-such", "generationIdOrMemberEpoch": 3, "memberId": "m", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 7}]}]})
    t.every("deleted", "DELETE_GROUPS", {"groupsNames": ["g1", "nobody"]}, versions=[2])
    t.ask("the same twice", "DELETE_GROUPS", 2, {"groupsNames": ["g2", "g2"]})
    t.ask("deleted group", "DESCRIBE_GROUPS", 5, {"groups": ["g1", "g2", "g2"]})


def consumer_groups(t):
    base = {"groupId": "c1", "memberId": "AAAAAAAAAAAAAAAAAAAAAQ", "memberEpoch": 0, "rebalanceTimeoutMs": 60000, "subscribedTopicNames": ["t"], "topicPartitions": []}
    def beat(name, versions=(0, 1), connection="", keep=None, **more):
        for version in versions:
            t.ask(name, "CONSUMER_GROUP_HEARTBEAT", version, (lambda k: {**base, **{key: value(k) if callable(value) else value for key, value in more.items()}}), keep=keep)
    beat("nameless group", groupId="")
    beat("an empty id", memberId="", versions=[1])
    beat("blank id", memberId="  ", versions=[1])
    beat("no timeout", rebalanceTimeoutMs=-1)
    beat("no subscription", subscribedTopicNames=None)
    beat("empty subscription and none owned is said", topicPartitions=None)
    beat("unknown assignor", serverAssignor="nonsense")
    beat("empty assignor", serverAssignor="")
    beat("bad pattern", versions=[1], subscribedTopicRegex="(", subscribedTopicNames=None)
    beat("owns at once", topicPartitions=lambda k: [{"topicId": k["t"], "partitions": [0]}])
    beat("unknown member", memberEpoch=5)
    beat("epoch below all", memberEpoch=-3)
    beat("leaves, no group", memberEpoch=-1)
    beat("leaves for a while, no instance", memberEpoch=-2)
    beat("empty instance", instanceId="")
    beat("empty rack", rackId="")
    for version in (0, 1):
        group = f"c{version}"
        beat("joins", versions=[version], groupId=group, keep=lambda a: {"ce": a["memberEpoch"]})
        beat("beats", versions=[version], groupId=group, memberEpoch=lambda k: k["ce"], subscribedTopicNames=None, topicPartitions=lambda k: [{"topicId": k["t"], "partitions": [0, 1, 2]}], rebalanceTimeoutMs=-1)
        beat("beats later", versions=[version], groupId=group, memberEpoch=lambda k: k["ce"] + 1)
        beat("beats earlier", versions=[version], groupId=group, memberEpoch=lambda k: k["ce"] - 1, topicPartitions=None)
        beat("a stranger beats", versions=[version], groupId=group, memberId="BBBBBBBBBBBBBBBBBBBBBB", memberEpoch=lambda k: k["ce"])
        for v in (0, 1):
            t.ask("described", "CONSUMER_GROUP_DESCRIBE", v, {"groupIds": [group, "nobody", "g5", ""], "includeAuthorizedOperations": True})
        t.ask("described as classic", "DESCRIBE_GROUPS", 6, {"groups": [group]})
        t.ask("described as classic", "DESCRIBE_GROUPS", 5, {"groups": [group]})
        t.ask("commits", "OFFSET_COMMIT", 9, lambda k: {"groupId": group, "generationIdOrMemberEpoch": k["ce"], "memberId": base["memberId"], "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
        t.ask("commits by an older version", "OFFSET_COMMIT", 8, lambda k: {"groupId": group, "generationIdOrMemberEpoch": k["ce"], "memberId": base["memberId"], "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
        t.ask("commits stale", "OFFSET_COMMIT", 9, lambda k: {"groupId": group, "generationIdOrMemberEpoch": k["ce"] + 5, "memberId": base["memberId"], "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
        t.ask("commits as a stranger", "OFFSET_COMMIT", 9, lambda k: {"groupId": group, "generationIdOrMemberEpoch": k["ce"], "memberId": "who", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
        t.ask("commits from outside", "OFFSET_COMMIT", 9, lambda k: {"groupId": group, "generationIdOrMemberEpoch": -1, "memberId": "", "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
        t.ask("fetched", "OFFSET_FETCH", 9, lambda k: {"groups": [{"groupId": group, "memberId": base["memberId"], "memberEpoch": k["ce"], "topics": None}]})
        t.ask("fetched stale", "OFFSET_FETCH", 9, lambda k: {"groups": [{"groupId": group, "memberId": base["memberId"], "memberEpoch": k["ce"] + 5, "topics": None}]})
        t.ask("fetched by a stranger", "OFFSET_FETCH", 9, lambda k: {"groups": [{"groupId": group, "memberId": "who", "memberEpoch": k["ce"], "topics": None}]})
        t.ask("deleted while in use", "DELETE_GROUPS", 2, {"groupsNames": [group]})
        t.ask("classic beat", "HEARTBEAT", 4, lambda k: {"groupId": group, "generationId": k["ce"], "memberId": base["memberId"]})
        t.ask("classic join of a strange protocol", "JOIN_GROUP", 9, {"groupId": group, "sessionTimeoutMs": 30000, "rebalanceTimeoutMs": 30000, "protocolType": "connect", "protocols": [{"name": "x", "metadata": "m"}]})
        beat("leaves", versions=[version], groupId=group, memberEpoch=-1)
        t.ask("left", "CONSUMER_GROUP_DESCRIBE", 1, {"groupIds": [group]})
    t.every("of consumers", "LIST_GROUPS", {"typesFilter": ["consumer"]}, versions=[5])
    beat("into a classic group", groupId="g5")
    t.ask("deleted", "DELETE_GROUPS", 2, {"groupsNames": ["c0", "c1"]})


def producers_and_transactions(t):
    for _ in range(600):
        if all(t.wire.ask(server=t.addresses[s], connection="", api="FIND_COORDINATOR", version=4, body={"keyType": 1, "coordinatorKeys": ["tx"]})
               ["coordinators"][0]["errorCode"] == 0 for s in t.addresses):
            break
        time.sleep(0.1)
    for _ in range(600):
        codes = [t.wire.ask(server=t.addresses[s], connection="", api="INIT_PRODUCER_ID", version=4, body={"transactionalId": f"warm{i}", "transactionTimeoutMs": 60000})["errorCode"] for s in t.addresses for i in range(4)]
        if not any(codes):
            break
        time.sleep(0.1)
    def hide(answer):
        return {**answer, "producerId": answer["producerId"] >= 0}
    kept = lambda a: {"p": a["producerId"], "pe": a["producerEpoch"]}
    t.every("idempotent", "INIT_PRODUCER_ID", {"transactionalId": None, "transactionTimeoutMs": 60000}, normal=hide, keep=kept)
    t.every("transactional", "INIT_PRODUCER_ID", {"transactionalId": "tx", "transactionTimeoutMs": 60000}, normal=hide)
    t.every("empty id", "INIT_PRODUCER_ID", {"transactionalId": "", "transactionTimeoutMs": 60000}, normal=hide)
    for timeout in (0, -1, 1000001, 1000000):
        t.every(f"timeout {timeout}", "INIT_PRODUCER_ID", {"transactionalId": "tx", "transactionTimeoutMs": timeout}, normal=hide)
    t.every("idempotent, strange timeout", "INIT_PRODUCER_ID", {"transactionalId": None, "transactionTimeoutMs": -1}, normal=hide)
    t.every("with an id of its own", "INIT_PRODUCER_ID", {"transactionalId": None, "transactionTimeoutMs": 60000, "producerId": 5, "producerEpoch": 3}, versions=[3, 4], normal=hide)
    t.every("half an id", "INIT_PRODUCER_ID", {"transactionalId": "tx", "transactionTimeoutMs": 60000, "producerId": 5, "producerEpoch": -1}, versions=[3, 4], normal=hide)
    t.every("fenced", "INIT_PRODUCER_ID", {"transactionalId": "tx", "transactionTimeoutMs": 60000, "producerId": 5, "producerEpoch": 3}, versions=[3, 4], normal=hide)
    t.every("unknown with an id", "INIT_PRODUCER_ID", {"transactionalId": "tx-new", "transactionTimeoutMs": 60000, "producerId": 5, "producerEpoch": 3}, versions=[3, 4], normal=hide)
    t.ask("idempotent", "INIT_PRODUCER_ID", 4, {"transactionalId": None, "transactionTimeoutMs": 60000}, normal=hide, keep=kept)

    def send(name, sequence, count=2, epoch=None, topic="both", values=None, version=9, producer=None, **more):
        t.ask(name, "PRODUCE", version, lambda k: {"acks": -1, "timeoutMs": 5000, "transactionalId": more.get("tx"), "topicData": [{"name": topic, "topicId": k.get(topic, NOBODY), "partitionData": [{"index": 0,
              "records": {"values": values or [f"k{i}=v" for i in range(count)], "producer": k["p"] if producer is None else producer, "epoch": k["pe"] if epoch is None else epoch,
                          "sequence": sequence, "transactional": "tx" in more, "time": NOW}}]}]})
    send("first", 0)
    send("again", 0)
    send("next", 2)
    send("a gap", 9)
    send("an old one", 1)
    send("again, the next", 2)
    send("next epoch, not from the start", 3, epoch=1)
    send("next epoch", 0, epoch=1)
    send("former epoch", 4, epoch=0)
    send("an unknown producer", 7, producer=999999)
    t.ask("producers", "DESCRIBE_PRODUCERS", 0, {"topics": [{"name": "both", "partitionIndexes": [0, 9]}, {"name": "nowhere", "partitionIndexes": [0]}]},
          normal=lambda a: {**a, "topics": [{**x, "partitions": [{**p, "activeProducers": sorted([{**q, "producerId": "p"} for q in p["activeProducers"]], key=str)} for p in x["partitions"]]} for x in a["topics"]]})

    def init(name, tx, version=4, **more):
        t.ask(name, "INIT_PRODUCER_ID", version, {"transactionalId": tx, "transactionTimeoutMs": 60000, **more}, normal=hide, keep=kept)
    def add(name, tx, topics, versions=(0, 1, 2, 3), **more):
        for version in versions:
            t.ask(name, "ADD_PARTITIONS_TO_TXN", version, lambda k: {"v3AndBelowTransactionalId": tx, "v3AndBelowProducerId": k["p"], "v3AndBelowProducerEpoch": k["pe"],
                  "v3AndBelowTopics": [{"name": name_, "partitions": ps} for name_, ps in topics], **{a: b(k) for a, b in more.items()}})
    def end(name, tx, committed, versions=(4,), **more):
        for version in versions:
            t.ask(name, "END_TXN", version, lambda k: {"transactionalId": tx, "producerId": k["p"], "producerEpoch": k["pe"], "committed": committed, **{a: b(k) for a, b in more.items()}},
                  normal=lambda a: {**a, "producerId": a.get("producerId", -1) >= 0} if "producerId" in a else a)
    def state(name, tx):
        t.ask(name, "DESCRIBE_TRANSACTIONS", 0, {"transactionalIds": [tx]}, normal=lambda a: {**a, "transactionStates": [{**s, "producerId": s["producerId"] >= 0} for s in a["transactionStates"]]})
    def settled(tx):
        for _ in range(600):
            if all(t.wire.ask(server=t.addresses[s], connection="", api="DESCRIBE_TRANSACTIONS", version=0, body={"transactionalIds": [tx]})["transactionStates"][0]["transactionState"] not in ("PrepareCommit", "PrepareAbort") for s in t.addresses):
                return
            time.sleep(0.05)
    init("a transaction's", "tx1")
    end("nothing to commit", "tx1", True, versions=range(0, 5))
    end("nothing to abort", "tx1", False, versions=range(0, 5))
    add("unknown id", "tx-unknown", [("t", [0])])
    add("empty id", "", [("t", [0])])
    add("another producer", "tx1", [("t", [0])], v3AndBelowProducerId=lambda k: 999999)
    add("another epoch", "tx1", [("t", [0])], v3AndBelowProducerEpoch=lambda k: k["pe"] + 1)
    add("an unknown partition beside", "tx1", [("t", [0, 9]), ("nowhere", [0])])
    state("still empty", "tx1")
    add("partitions", "tx1", [("t", [0]), ("both", [0])])
    state("ongoing", "tx1")
    send("in the transaction", 0, topic="t", tx="tx1")
    send("outside the transaction", 2, topic="t")
    send("outside the transaction, with a gap", 7, topic="t")
    send("a partition not in it", 0, topic="compact", tx="tx1", values=["a=1"])
    t.ask("open", "LIST_OFFSETS", 7, {"replicaId": -1, "isolationLevel": 1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "timestamp": -1}]}]})
    t.ask("open", "FETCH", 11, {"maxWaitMs": 0, "maxBytes": 1 << 20, "isolationLevel": 1, "sessionEpoch": -1, "topics": [{"topic": "t", "partitions": [{"partition": 0, "fetchOffset": 22, "partitionMaxBytes": 10000}]}]})
    for version in range(0, 5):
        t.ask("offsets", "ADD_OFFSETS_TO_TXN", version, lambda k: {"transactionalId": "tx1", "producerId": k["p"], "producerEpoch": k["pe"], "groupId": "tg"})
    t.ask("offsets of a nameless group", "ADD_OFFSETS_TO_TXN", 3, lambda k: {"transactionalId": "tx1", "producerId": k["p"], "producerEpoch": k["pe"], "groupId": ""})
    t.ask("offsets, another epoch", "ADD_OFFSETS_TO_TXN", 3, lambda k: {"transactionalId": "tx1", "producerId": k["p"], "producerEpoch": k["pe"] + 1, "groupId": "tg"})
    for version in range(0, 5):
        t.ask("commits", "TXN_OFFSET_COMMIT", version, lambda k: {"transactionalId": "tx1", "groupId": "tg", "producerId": k["p"], "producerEpoch": k["pe"], "topics": [
            {"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 4, "committedMetadata": "x"}, {"partitionIndex": 9, "committedOffset": 4}]}]})
    t.ask("commits as an unknown member", "TXN_OFFSET_COMMIT", 3, lambda k: {"transactionalId": "tx1", "groupId": "tg", "producerId": k["p"], "producerEpoch": k["pe"], "generationId": 3, "memberId": "who", "topics": [
        {"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 4}]}]})
    for stable in (False, True):
        t.ask(f"pending, stable {stable}", "OFFSET_FETCH", 8, {"requireStable": stable, "groups": [{"groupId": "tg", "topics": [{"name": "t", "partitionIndexes": [0, 1]}]}]})
    state("with offsets", "tx1")
    t.ask("ongoing", "LIST_TRANSACTIONS", 0, {"stateFilters": ["Ongoing"]}, normal=lambda a: {**a, "transactionStates": [{**s, "producerId": 0} for s in a["transactionStates"]]})
    t.ask("unknown state", "LIST_TRANSACTIONS", 0, {"stateFilters": ["Nonsense"]})
    t.ask("of a producer", "LIST_TRANSACTIONS", 0, lambda k: {"producerIdFilters": [k["p"]]}, normal=lambda a: {**a, "transactionStates": [{**s, "producerId": 0} for s in a["transactionStates"]]})
    t.ask("long ones", "LIST_TRANSACTIONS", 1, {"durationFilter": 1000000}, normal=lambda a: {**a, "transactionStates": [{**s, "producerId": 0} for s in a["transactionStates"]]})
    t.ask("by pattern", "LIST_TRANSACTIONS", 2, {"transactionalIdPattern": "tx.$", "stateFilters": ["Ongoing"]}, normal=lambda a: {**a, "transactionStates": [{**s, "producerId": 0} for s in a["transactionStates"]]})
    t.ask("by a bad pattern", "LIST_TRANSACTIONS", 2, {"transactionalIdPattern": "("})
    end("commits with another epoch", "tx1", True, producerEpoch=lambda k: k["pe"] + 1, versions=(0, 1, 2, 4))
    end("commits as another producer", "tx1", True, producerId=lambda k: 99999)
    end("commits", "tx1", True)
    settled("tx1")
    for topic, at in (("t", -3), ("both", -3), ("both", NOW)):
        t.ask(f"{topic} by the marker's time, {at if at < 0 else 'from a time on'}", "LIST_OFFSETS", 7, {"replicaId": -1, "topics": [{"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": at}]}]})
    end("commits again", "tx1", True)
    end("aborts after", "tx1", False)
    state("committed", "tx1")
    t.ask("committed", "OFFSET_FETCH", 8, {"requireStable": True, "groups": [{"groupId": "tg", "topics": [{"name": "t", "partitionIndexes": [0, 1]}]}]})
    t.ask("after", "FETCH", 11, {"maxWaitMs": 0, "maxBytes": 1 << 20, "isolationLevel": 1, "sessionEpoch": -1, "topics": [{"topic": "t", "partitions": [{"partition": 0, "fetchOffset": 22, "partitionMaxBytes": 10000}]}]})
    add("a second one", "tx1", [("t", [0])], versions=[3])
    send("in the second", 2, topic="t", tx="tx1")
    end("aborts", "tx1", False)
    settled("tx1")
    t.ask("aborted", "FETCH", 11, {"maxWaitMs": 0, "maxBytes": 1 << 20, "isolationLevel": 1, "sessionEpoch": -1, "topics": [{"topic": "t", "partitions": [{"partition": 0, "fetchOffset": 22, "partitionMaxBytes": 10000}]}]},
          normal=lambda a: {**a, "responses": [{**x, "partitions": [{**p, "abortedTransactions": [{**b, "producerId": 0} for b in p["abortedTransactions"] or []]} for p in x["partitions"]]} for x in a["responses"]]})
    # The newer way: the log adds partitions, and each end gives a new epoch.
    init("the newer way", "tx2", version=5 if t.common["INIT_PRODUCER_ID"][1] >= 5 else 4)
    send("in a transaction by itself", 0, topic="t", tx="tx2", version=12)
    state("begun by a batch", "tx2")
    t.ask("offsets by themselves", "TXN_OFFSET_COMMIT", 5, lambda k: {"transactionalId": "tx2", "groupId": "tg2", "producerId": k["p"], "producerEpoch": k["pe"], "topics": [
        {"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 4}]}]})
    state("with offsets by themselves", "tx2")
    end("commits", "tx2", True, versions=[5])
    settled("tx2")
    end("commits again", "tx2", True, versions=[5])
    end("aborts after", "tx2", False, versions=[5])
    send("with the former epoch", 2, topic="t", tx="tx2", version=12)
    # A partition that knows nothing of the producer takes what joins by itself from the start only, and what was added from anywhere.
    init("from the start", "tx3", version=5 if t.common["INIT_PRODUCER_ID"][1] >= 5 else 4)
    send("not the first, in a transaction by itself", 1, topic="t", tx="tx3", version=12)
    send("the first, in a transaction by itself", 0, topic="t", tx="tx3", version=12)
    send("the next, in a transaction by itself", 2, topic="t", tx="tx3", version=12)
    end("of that", "tx3", True, versions=[5])
    settled("tx3")
    state("unknown", "tx-unknown")
    state("nameless", "")
    t.ask("markers of nobody", "WRITE_TXN_MARKERS", 1, {"markers": [{"producerId": 4242, "producerEpoch": 0, "transactionResult": False, "coordinatorEpoch": 0, "topics": [{"name": "nowhere", "partitionIndexes": [0]}]}]},
          normal=lambda a: a)


def groups_of_transactions(t):
    """Groups whose offsets are committed in transactions alone, or deleted one by one."""
    hide = lambda a: {**a, "producerId": a["producerId"] >= 0}

    def group(name, id):
        listed = lambda a: {**a, "groups": [g for g in a["groups"] if g["groupId"] == id]}
        t.ask(f"{name}, listed", "LIST_GROUPS", 4, {}, normal=listed)
        t.ask(f"{name}, described", "DESCRIBE_GROUPS", 5, {"groups": [id]})
        t.ask(f"{name}, fetched", "OFFSET_FETCH", 8, {"groups": [{"groupId": id, "topics": None}]})

    def begin(id):
        t.ask(f"init for {id}", "INIT_PRODUCER_ID", 4, {"transactionalId": f"tx-{id}", "transactionTimeoutMs": 60000}, normal=hide,
              keep=lambda a: {"gp": a["producerId"], "ge": a["producerEpoch"]})
        who = lambda k: {"transactionalId": f"tx-{id}", "producerId": k["gp"], "producerEpoch": k["ge"]}
        t.ask(f"adds {id}", "ADD_OFFSETS_TO_TXN", 3, lambda k: {**who(k), "groupId": id})
        group(f"added {id}", id)
        t.ask(f"commits to {id}", "TXN_OFFSET_COMMIT", 3, lambda k: {**who(k), "groupId": id, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 4}]}]})
        group(f"pending {id}", id)

    def end(id, committed):
        t.ask(f"ends {id}", "END_TXN", 3, lambda k: {"transactionalId": f"tx-{id}", "producerId": k["gp"], "producerEpoch": k["ge"], "committed": committed})
        for _ in range(600):
            if all(t.wire.ask(server=t.addresses[s], connection="", api="DESCRIBE_TRANSACTIONS", version=0, body={"transactionalIds": [f"tx-{id}"]})["transactionStates"][0]["transactionState"] not in ("PrepareCommit", "PrepareAbort") for s in t.addresses):
                return
            time.sleep(0.05)

    def deletes(name, id):
        t.ask(name, "OFFSET_DELETE", 0, {"groupId": id, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0}]}]})
    begin("mixed-group")
    for stable in (False, True):
        t.ask(f"all offsets, stable {stable}, pending alone", "OFFSET_FETCH", 8, {"requireStable": stable, "groups": [{"groupId": "mixed-group", "topics": None}]})
    t.ask("commits beside the transaction", "OFFSET_COMMIT", 8, {"groupId": "mixed-group", "generationIdOrMemberEpoch": -1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 3}]}]})
    end("mixed-group", True)
    group("the last commit", "mixed-group")
    begin("aborted-group")
    end("aborted-group", False)
    group("aborted", "aborted-group")
    deletes("what was aborted", "aborted-group")
    group("aborted and deleted", "aborted-group")
    t.ask("aborted group", "DELETE_GROUPS", 2, {"groupsNames": ["aborted-group"]})
    group("deleted after the abort", "aborted-group")
    begin("half-deleted-group")
    deletes("what is pending", "half-deleted-group")
    group("half deleted", "half-deleted-group")
    end("half-deleted-group", False)
    group("half deleted and aborted", "half-deleted-group")
    t.ask("commits to offsets-group", "OFFSET_COMMIT", 8, {"groupId": "offsets-group", "generationIdOrMemberEpoch": -1, "topics": [{"name": "t", "partitions": [{"partitionIndex": 0, "committedOffset": 4}]}]})
    deletes("all offsets", "offsets-group")
    group("without offsets", "offsets-group")
    t.ask("group without offsets", "DELETE_GROUPS", 2, {"groupsNames": ["offsets-group"]})
    group("without offsets, deleted", "offsets-group")


def sessions_and_new_topics(t):
    """Fetch sessions that go on while a topic is deleted, made anew under its name, and deleted for good."""
    plain = lambda a: {**a, "sessionId": a["sessionId"] > 0}
    name, other = "anew", "beside"

    def make(*topics):
        t.ask(f"{topics[0]} {len(topics)}", "CREATE_TOPICS", 7, {"topics": [topic(x, 2) for x in topics], "timeoutMs": 10000}, keep=lambda a: {f"{x['name']}": x["topicId"] for x in a["topics"]})
        led(*[(x, i) for x in topics for i in (0, 1)])

    def led(*places):
        t.until_alike("FETCH", 12, {"maxWaitMs": 0, "sessionEpoch": -1, "topics": [
            {"topic": x, "partitions": [{"partition": i, "fetchOffset": 0, "partitionMaxBytes": 1000}]} for x, i in places]})

    for version in (12, 13, 17):
        make(name, other)
        first = {server: dict(t.kept[server]) for server in t.kept}

        def parts(k, indexes=(0, 1)):
            old = first["kafka"] if k is t.kept["kafka"] else first["millpond"]
            return [{"topic": x, "topicId": old[x], "partitions": [{"partition": i, "fetchOffset": 0, "partitionMaxBytes": 1000} for i in indexes]} for x in (name, other)]

        def fetch(what, epoch, topics=lambda k: []):
            t.ask(what, "FETCH", version, lambda k: {"maxWaitMs": 0, "sessionId": 0 if epoch <= 0 else k["anew-session"], "sessionEpoch": epoch, "maxBytes": 10000, "topics": topics(k)},
                  normal=plain, keep=(lambda a: {"anew-session": a["sessionId"]}) if epoch == 0 else None)

        def gone():
            t.ask("goes", "DELETE_TOPICS", 4, {"topicNames": [name], "timeoutMs": 5000})
            t.until_alike("METADATA", 12, {"topics": [{"name": name}], "allowAutoTopicCreation": False})
        fetch("session of both", 0, parts)
        fetch("nothing new", 1)
        gone()
        fetch("gone", 2)
        fetch("gone and named again", 3, parts)
        fetch("gone, without a session", -1, parts)
        t.ask("fewer", "CREATE_TOPICS", 7, {"topics": [topic(name, 1)], "timeoutMs": 10000})
        led((name, 0))
        fetch("anew with one partition", 4)
        fetch("anew and named again", 5, parts)
        fetch("anew, without a session", -1, lambda k: parts(k, [0]))
        fetch("anew, with a session that begins", 0, lambda k: parts(k, [0]))
        fetch("anew, and this goes on", 1)
        gone()
        fetch("gone again", 2)
        t.ask("the other goes", "DELETE_TOPICS", 4, {"topicNames": [other], "timeoutMs": 5000})
        t.until_alike("METADATA", 12, {"topics": [{"name": other}], "allowAutoTopicCreation": False})


def acls(t):
    def create(name, versions=None, **more):
        t.every(name, "CREATE_ACLS", {"creations": [{"resourceType": 2, "resourceName": "t", "resourcePatternType": 3, "principal": "User:alice", "host": "*", "operation": 3, "permissionType": 3, **more}]}, versions)
    create("plain")
    create("prefixed", resourcePatternType=4, resourceName="t-")
    create("any type", resourceType=1)
    create("unknown type", resourceType=99)
    create("any pattern", resourcePatternType=1)
    create("matching pattern", resourcePatternType=2)
    create("any operation", operation=1)
    create("unknown operation", operation=99)
    create("any permission", permissionType=1)
    create("empty name", resourceName="")
    create("bad principal", principal="alice")
    create("empty principal", principal="")
    create("empty host", host="", resourceName="hostless")
    create("cluster", resourceType=4, resourceName="kafka-cluster", operation=9)
    create("another cluster", resourceType=4, resourceName="other", operation=9)
    create("an operation topics have not", operation=12)
    create("token", resourceType=6, resourceName="x", operation=8)
    create("user", resourceType=7, resourceName="User:bob", operation=13)
    create("group", resourceType=3, resourceName="g", operation=3, permissionType=2)
    t.every("nothing", "CREATE_ACLS", {"creations": []})

    def listed(name, versions=None, **more):
        t.every(name, "DESCRIBE_ACLS", {"resourceTypeFilter": 1, "resourceNameFilter": None, "patternTypeFilter": 1, "principalFilter": None, "hostFilter": None, "operation": 1, "permissionType": 1, **more}, versions)
    listed("all")
    listed("of a topic", resourceTypeFilter=2, resourceNameFilter="t", patternTypeFilter=3)
    listed("matching", resourceTypeFilter=2, resourceNameFilter="t-1", patternTypeFilter=2)
    listed("of nobody", principalFilter="User:nobody")
    listed("denied", permissionType=2)
    listed("unknown type", resourceTypeFilter=99)
    listed("unknown pattern", patternTypeFilter=99)
    listed("unknown operation", operation=99)
    listed("unknown permission", permissionType=99)

    def removed(name, versions=None, **more):
        t.every(name, "DELETE_ACLS", {"filters": [{"resourceTypeFilter": 1, "resourceNameFilter": None, "patternTypeFilter": 1, "principalFilter": None, "hostFilter": None, "operation": 1, "permissionType": 1, **more}]}, versions)
    removed("unknown operation", operation=99)
    removed("of nobody", principalFilter="User:nobody")
    removed("of a group", resourceTypeFilter=3)
    removed("the rest", versions=[3])
    listed("none left")


def quotas_and_users(t):
    def entity(**kinds):
        return [{"entityType": kind.replace("_", "-"), "entityName": name} for kind, name in kinds.items()]
    def alter(name, of, key="producer_byte_rate", value=1000.0, remove=False, validate=False, versions=None):
        t.every(name, "ALTER_CLIENT_QUOTAS", {"validateOnly": validate, "entries": [{"entity": of, "ops": [{"key": key, "value": value, "remove": remove}]}]}, versions)
    alter("a user's", entity(user="alice"))
    alter("a client's", entity(client_id="c"))
    alter("a user's client's", entity(user="alice", client_id="c"))
    alter("every user's", entity(user=None))
    alter("an address's", entity(ip="10.0.0.1"), key="connection_creation_rate", value=5.0)
    alter("only looked at", entity(user="bob"), validate=True)
    alter("of nobody", [])
    alter("of a strange kind", entity(tribe="x"))
    alter("an empty name", entity(user=""))
    alter("an unknown key", entity(user="alice"), key="no_such")
    alter("a key of users for addresses", entity(ip="10.0.0.1"))
    alter("address and user", entity(ip="10.0.0.1", user="a"), key="connection_creation_rate")
    alter("a bad address", entity(ip="not an address"), key="connection_creation_rate")
    alter("negative", entity(user="alice"), value=-1.0)
    alter("zero", entity(user="alice"), value=0.0)
    alter("a fraction of a byte", entity(user="alice"), value=10.5)
    alter("a percentage", entity(user="alice"), key="request_percentage", value=12.5)
    alter("a fractional rate of connections", entity(ip="10.0.0.1"), key="connection_creation_rate", value=1.5)
    alter("the same kind twice", entity(user="alice") + entity(user="bob"), validate=True)
    alter("removed, not there", entity(user="nobody"), remove=True)

    def described(name, components, strict=False, versions=None):
        t.every(name, "DESCRIBE_CLIENT_QUOTAS", {"components": components, "strict": strict}, versions)
    EXACT, DEFAULT, ANY = 0, 1, 2
    described("all", [])
    described("all, strictly", [], strict=True)
    described("a user's", [{"entityType": "user", "matchType": EXACT, "match": "alice"}])
    described("a user's, strictly", [{"entityType": "user", "matchType": EXACT, "match": "alice"}], strict=True)
    described("every user's", [{"entityType": "user", "matchType": DEFAULT, "match": None}])
    described("any user's", [{"entityType": "user", "matchType": ANY, "match": None}])
    described("exact without a name", [{"entityType": "user", "matchType": EXACT, "match": None}])
    described("unknown match", [{"entityType": "user", "matchType": 9, "match": None}])
    described("default with a name", [{"entityType": "user", "matchType": DEFAULT, "match": "x"}])
    described("of a strange kind", [{"entityType": "tribe", "matchType": ANY, "match": None}])
    described("of an empty kind", [{"entityType": "", "matchType": ANY, "match": None}])
    described("address and user", [{"entityType": "ip", "matchType": ANY, "match": None}, {"entityType": "user", "matchType": ANY, "match": None}])
    described("the same twice", [{"entityType": "user", "matchType": ANY, "match": None}] * 2)
    for of in (entity(user="alice"), entity(client_id="c"), entity(user="alice", client_id="c"), entity(user=None)):
        for key in ("producer_byte_rate", "request_percentage"):
            alter(f"{key} removed", of, key=key, remove=True)
    alter("connections removed", entity(ip="10.0.0.1"), key="connection_creation_rate", remove=True)
    described("none", [])

    def user(name, up=(), down=()):
        t.ask(name, "ALTER_USER_SCRAM_CREDENTIALS", 0, {"upsertions": [{"name": n, "mechanism": m, "iterations": i, "salt": "salt", "saltedPassword": "s" * (32 if m == 1 else 64)} for n, m, i in up],
              "deletions": [{"name": n, "mechanism": m} for n, m in down]})
    def users(name, *names):
        t.ask(name, "DESCRIBE_USER_SCRAM_CREDENTIALS", 0, {"users": [{"name": n} for n in names] if names else None})
    users("none yet", "carol")
    user("made", up=[("carol", 1, 4096), ("dave", 2, 5000)])
    users("both", "carol", "dave")
    users("twice", "carol", "carol")
    users("empty name", "")
    user("too few iterations", up=[("carol", 1, 10)])
    user("too many iterations", up=[("carol", 1, 99999)])
    user("unknown mechanism", up=[("carol", 9, 4096)])
    user("empty name", up=[("", 1, 4096)])
    user("not there", down=[("nobody", 1), ("carol", 2)])
    user("made and removed at once", up=[("carol", 1, 4096)], down=[("carol", 1)])
    user("twice", up=[("carol", 1, 4096), ("carol", 1, 5000)])
    user("unknown mechanism removed", down=[("carol", 0)])
    user("nothing")
    user("removed", down=[("carol", 1), ("dave", 2)])
    users("gone", "carol")


def cluster(t):
    for operations in (False, True):
        t.every(f"operations {operations}", "DESCRIBE_CLUSTER", {"includeClusterAuthorizedOperations": operations})
    t.every("controllers", "DESCRIBE_CLUSTER", {"endpointType": 2}, versions=[1, 2])
    t.every("strange endpoints", "DESCRIBE_CLUSTER", {"endpointType": 7}, versions=[1, 2])
    t.every("fenced too", "DESCRIBE_CLUSTER", {"includeFencedBrokers": True}, versions=[2])
    t.every("another one", "UNREGISTER_BROKER", {"brokerId": 77})
    t.every("the metadata log", "DESCRIBE_QUORUM", {"topics": [{"topicName": "__cluster_metadata", "partitions": [{"partitionIndex": 0}]}]},
            normal=lambda a: {"errorCode": a["errorCode"], "names": [x["topicName"] for x in a["topics"]], "codes": [p["errorCode"] for x in a["topics"] for p in x["partitions"]]})
    t.every("another topic", "DESCRIBE_QUORUM", {"topics": [{"topicName": "t", "partitions": [{"partitionIndex": 0}]}]})
    if "UPDATE_FEATURES" in t.common:
        def features(name, *updates, validate=True):
            t.every(name, "UPDATE_FEATURES", {"timeoutMs": 5000, "validateOnly": validate, "featureUpdates": [
                {"feature": f, "maxVersionLevel": level, "upgradeType": kind} for f, level, kind in updates]}, versions=[1, 2])
        UP, SAFE, UNSAFE = 1, 2, 3
        for name, level in (("as it is", 1), ("too high", 9), ("down", 0)):
            t.ask(name, "UPDATE_FEATURES", 0, {"timeoutMs": 5000, "featureUpdates": [{"feature": "group.version", "maxVersionLevel": level}]})
        features("lowered", ("group.version", 0, SAFE), validate=False)
        t.ask("after", "API_VERSIONS", 3, {"clientSoftwareName": "x", "clientSoftwareVersion": "1"}, normal=lambda a: {"finalizedFeatures": a["finalizedFeatures"]})
        t.ask("without its feature", "CONSUMER_GROUP_HEARTBEAT", 1, {"groupId": "c-down", "memberId": "AAAAAAAAAAAAAAAAAAAAAQ", "rebalanceTimeoutMs": 1000, "subscribedTopicNames": ["t"], "topicPartitions": []})
        t.ask("without its feature", "CONSUMER_GROUP_DESCRIBE", 1, {"groupIds": ["c-down"]})
        features("raised", ("group.version", 1, UP), validate=False)
        features("nothing")
        features("as it is", ("group.version", 1, UP))
        features("down", ("group.version", 0, SAFE))
        features("down, called up", ("group.version", 0, UP))
        features("too high", ("group.version", 9, UP))
        features("unknown", ("no.such", 1, UP))
        features("empty", ("", 1, UP))
        features("negative", ("group.version", -1, SAFE))
        features("twice", ("group.version", 1, UP), ("group.version", 0, SAFE))
        features("unknown kind", ("group.version", 1, 0))
        features("metadata too high", ("metadata.version", 99, UP))
        features("metadata as it is", ("metadata.version", 27, UP))
        features("metadata down", ("metadata.version", 26, SAFE))
        features("metadata far down", ("metadata.version", 7, UNSAFE))
        features("one good, one bad", ("transaction.version", 1, SAFE), ("no.such", 1, UP))
        features("down for good", ("transaction.version", 1, SAFE), validate=False)
        t.ask("after", "API_VERSIONS", 4, {"clientSoftwareName": "x", "clientSoftwareVersion": "1"}, normal=lambda a: {"finalizedFeatures": a["finalizedFeatures"]})
        features("up again", ("transaction.version", 2, UP), validate=False)
    for api, body in (("CREATE_DELEGATION_TOKEN", {"maxLifetimeMs": -1}), ("RENEW_DELEGATION_TOKEN", {"hmac": "x"}), ("EXPIRE_DELEGATION_TOKEN", {"hmac": "x"}), ("DESCRIBE_DELEGATION_TOKEN", {"owners": None})):
        if api in t.common:
            t.every("on a plain listener", api, body)


def delete(t):
    def deleted(name, *topics):
        t.every(name, "DELETE_TOPICS", {"topicNames": list(topics), "timeoutMs": 5000}, versions=range(1, 6))
        t.every(name, "DELETE_TOPICS", {"topics": [{"name": x} for x in topics], "timeoutMs": 5000}, versions=[6])
    deleted("unknown", "nowhere")
    t.every("unknown id", "DELETE_TOPICS", {"topics": [{"name": None, "topicId": NOBODY}], "timeoutMs": 5000}, versions=[6])
    t.every("neither name nor id", "DELETE_TOPICS", {"topics": [{"name": None}], "timeoutMs": 5000}, versions=[6])
    t.every("name and id", "DELETE_TOPICS", lambda k: {"topics": [{"name": "t", "topicId": k["t"]}], "timeoutMs": 5000}, versions=[6])
    t.every("by name and again by id", "DELETE_TOPICS", lambda k: {"topics": [{"name": "t"}, {"name": None, "topicId": k["t"]}], "timeoutMs": 5000}, versions=[6])
    deleted("a bad name", "a b")
    deleted("twice", "compact", "compact", "nowhere")
    deleted("nothing")
    for version in range(1, 7):
        name = f"plain-{version + 1}"
        t.ask("by name", "DELETE_TOPICS", version, {"timeoutMs": 5000, **({"topicNames": [name]} if version < 6 else {"topics": [{"name": name}]})})
    t.ask("by id", "DELETE_TOPICS", 6, lambda k: {"topics": [{"name": None, "topicId": k["compact"]}], "timeoutMs": 5000})
    gone = {"topics": [{"name": "compact"}, {"name": "plain-2"}], "allowAutoTopicCreation": False}
    t.until_alike("METADATA", 12, gone)
    t.ask("gone", "METADATA", 12, gone)
    offsets = {"groups": [{"groupId": "simple", "topics": None}]}
    t.until_alike("OFFSET_FETCH", 8, offsets)
    t.ask("offsets of a deleted topic", "OFFSET_FETCH", 8, offsets)


BROKER_KEYS = ["advertised.listeners", "auto.create.topics.enable", "delete.topic.enable", "default.replication.factor", "log.retention.ms", "log.retention.hours", "num.partitions",
               "min.insync.replicas", "message.max.bytes", "offsets.topic.replication.factor", "log.cleanup.policy", "compression.type", "listeners", "node.id", "broker.id",
               "socket.request.max.bytes", "transaction.max.timeout.ms", "transactional.id.expiration.ms", "producer.id.expiration.ms", "offsets.retention.minutes",
               "group.max.session.timeout.ms", "group.consumer.session.timeout.ms", "group.consumer.heartbeat.interval.ms", "offset.metadata.max.bytes",
               "max.incremental.fetch.session.cache.slots", "connections.max.idle.ms", "log.retention.check.interval.ms", "controlled.shutdown.enable"]

KEYS = dict(enumerate("""PRODUCE FETCH LIST_OFFSETS METADATA 4 5 6 7 OFFSET_COMMIT OFFSET_FETCH FIND_COORDINATOR JOIN_GROUP HEARTBEAT LEAVE_GROUP SYNC_GROUP
DESCRIBE_GROUPS LIST_GROUPS SASL_HANDSHAKE API_VERSIONS CREATE_TOPICS DELETE_TOPICS DELETE_RECORDS INIT_PRODUCER_ID OFFSET_FOR_LEADER_EPOCH ADD_PARTITIONS_TO_TXN
ADD_OFFSETS_TO_TXN END_TXN WRITE_TXN_MARKERS TXN_OFFSET_COMMIT DESCRIBE_ACLS CREATE_ACLS DELETE_ACLS DESCRIBE_CONFIGS ALTER_CONFIGS ALTER_REPLICA_LOG_DIRS DESCRIBE_LOG_DIRS
SASL_AUTHENTICATE CREATE_PARTITIONS CREATE_DELEGATION_TOKEN RENEW_DELEGATION_TOKEN EXPIRE_DELEGATION_TOKEN DESCRIBE_DELEGATION_TOKEN DELETE_GROUPS ELECT_LEADERS
INCREMENTAL_ALTER_CONFIGS ALTER_PARTITION_REASSIGNMENTS LIST_PARTITION_REASSIGNMENTS OFFSET_DELETE DESCRIBE_CLIENT_QUOTAS ALTER_CLIENT_QUOTAS DESCRIBE_USER_SCRAM_CREDENTIALS
ALTER_USER_SCRAM_CREDENTIALS 52 53 54 DESCRIBE_QUORUM 56 UPDATE_FEATURES 58 59 DESCRIBE_CLUSTER DESCRIBE_PRODUCERS 62 63 UNREGISTER_BROKER DESCRIBE_TRANSACTIONS LIST_TRANSACTIONS 67
CONSUMER_GROUP_HEARTBEAT CONSUMER_GROUP_DESCRIBE 70 71 72 73 LIST_CONFIG_RESOURCES DESCRIBE_TOPIC_PARTITIONS""".split()))
