"""The same requests to Millpond and to Apache Kafka 4.1, by Kafka's own codec, and their answers field by field: differential.py

A step is one API in one version; the connection, ids that the servers gave, and what was said before are as a client would
have them. Identities, times and addresses are put aside, sentences are only asked for being there. What differs and is meant to
differ is listed in EXPLAINED with the reason; an entry that explains nothing any more fails too. SHOW=TEXT prints the answers of
the steps whose names contain it.
"""
import json
import os
import re
import subprocess
import sys
import time

import differential_steps
import servers
from ports import free_port
from servers import JAVA, KAFKA_JAVA, CACHE, Process, until

SERVERS = ("kafka", "millpond")
SHOW = os.environ.get("SHOW")

# (a regular expression over "API vN name path: Kafka's Millpond's", why). Paths are as in "topics[t].errorCode".
EXPLAINED = [
    (r"API_VERSIONS .*apiKeys\[24\]", "versions 4 and 5 of AddPartitionsToTxn are for brokers among themselves"),
    (r"API_VERSIONS .*apiKeys\[(80|81)\]", "there are no other voters to speak of"),
    (r"API_VERSIONS .*apiKeys\[(7[6-9]|8[3-7]|9[0-2])\]", "share groups are not there"),
    (r"API_VERSIONS .*(eligible.leader.replicas|kraft|share).version", "features of what is not there"),
    (r"(configs\[min.insync.replicas\]|DESCRIBE_CONFIGS v4 all brokers)", "Kafka sets this for the cluster when it uses eligible leader replicas"),
    (r"(configs\[|CREATE_TOPICS v7 )(message.format.version|message.downconversion.enable|message.timestamp.difference.max.ms)", "settings of Kafka 3, which tools of that time still set"),
    (r"CREATE_TOPICS v7 segment.bytes=1048575", "smaller segments are taken, as in Kafka 3"),
    (r"CREATE_TOPICS v7 internal.segment.bytes", "Kafka's own tests set it"),
    (r"errorMessage: false true", "we say why where Kafka says nothing"),
    (r"CREATE_PARTITIONS v\d too many", "Kafka fails inside where too many partitions are asked for"),
    (r"CREATE_ACLS v\d (any|matching) (type|pattern|operation|permission).*errorCode", "Kafka fails inside where an entry is about no single thing"),
    (r"_ACLS v\d .*(empty host|hostless)", "an entry for no host at all is refused"),
    (r"ALTER_CLIENT_QUOTAS v\d the same kind twice", "Kafka takes the last of two names of one kind"),
    (r"DESCRIBE_TRANSACTIONS .*__consumer_offsets", "offsets are not in a topic"),
    (r"LIST_GROUPS v\d .*groups\[g\]", "a first member that is refused leaves an empty group with Kafka"),
    (r"ELECT_LEADERS v\d all", "Kafka lists topics without partitions that need an election"),
    (r"INCREMENTAL_ALTER_CONFIGS v1 broker, unknown", "settings of a broker that nobody knows are refused"),
    (r"INCREMENTAL_ALTER_CONFIGS v\d unknown operation.*errorCode", "Kafka fails inside"),
    (r"_CONFIGS v\d (group.*share|logger|type 8|type 16)", "there are no share groups; levels of the log are RUST_LOG's; clients send no metrics"),
    (r"DESCRIBE_CONFIGS v\d group.*configs\[(share|streams)\.", "there are no share groups and streams groups"),
    (r"LIST_CONFIG_RESOURCES v1 resources \[(8)?\]", "levels of the log are RUST_LOG's"),
    (r"DESCRIBE_CONFIGS v4 broker results.*configs\[(broker.id|node.id|offsets.topic.replication.factor)\]", "the file of that Kafka gives them; nothing does here"),
    (r"DESCRIBE_CONFIGS v4 broker results.*configs\[listeners\].(value|readOnly|synonyms\S*)", "other ports, a controller's too; they cannot be changed here"),
    (r"DESCRIBE_CONFIGS v4 broker results.*configs\[num.partitions\].readOnly", "it can be changed here"),
    (r"((DELETE_GROUPS|OFFSET_COMMIT) v\d nameless|ADD_OFFSETS_TO_TXN .*nameless)", "offsets of a group without a name are refused"),
    (r"DESCRIBE_CONFIGS v4 two at once|DESCRIBE_GROUPS v5 deleted group groups:", "what is named twice is answered once"),
    (r"LIST_CONFIG_RESOURCES v1 resources \[32\]", "a group whose settings were taken back is not listed"),
    (r"CONSUMER_GROUP_DESCRIBE v1 left groups\[c\d\].assignmentEpoch", "nobody is assigned anything, at the epoch that the group has"),
    (r"DESCRIBE_TRANSACTIONS v0 committed .*transactionStartTimeMs", "what is over has no beginning"),
    (r"PRODUCE v9 again.*logAppendTimeMs", "a repeated answer is the first one word for word"),
    (r"PRODUCE v9 the same partition twice", "Kafka keeps the last of two batches for a partition, we keep both"),
    (r"PRODUCE v9 outside the transaction.*logStartOffset", "who is in no transaction is told no start"),
    (r"CONSUMER_GROUP_HEARTBEAT v\d into a classic group memberEpoch", "epochs go on from the group's generation"),
]


class Unsupported(Exception):
    """The version cannot say what the request is to say."""


class Wire:
    """Kafka's codec in a virtual machine of its own."""

    def __init__(self):
        jars = f"{os.environ.get('WIRE', CACHE + '/java/' + KAFKA_JAVA)}:{CACHE}/kafka/{KAFKA_JAVA}/lib/*"
        self.child = subprocess.Popen([*JAVA, "-Xmx256m", "-cp", jars, "Wire"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **line):
        self.child.stdin.write(json.dumps(line) + "\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        if "UnsupportedVersionException" in answer.get("failed", ""):
            raise Unsupported(answer["failed"])
        assert "failed" not in answer, f"{line}: {answer['failed']}"
        return answer


class Differential:
    def __init__(self, addresses):
        self.addresses, self.wire = addresses, Wire()
        self.steps, self.found, self.used = 0, [], set()
        # What each server said, by the name under which a step kept it.
        self.kept = {server: {} for server in SERVERS}

    def ask(self, name, api, version, body=None, connection="", keep=None, normal=None):
        """One request to both. `body` may be a function of what was kept; `keep` takes the answer and gives what to keep;
        `normal` makes two raw answers comparable beyond what is done to all."""
        answers = {}
        for server in SERVERS:
            kept = self.kept[server]
            sent = body(kept) if callable(body) else body or {}
            answer = self.wire.ask(server=self.addresses[server], connection=connection, api=api, version=version, body=sent)
            if keep:
                try:
                    kept.update(keep(answer))
                except (KeyError, IndexError, TypeError) as e:
                    raise AssertionError(f"{name} v{version} at {server}: nothing to keep ({e!r}) in {answer}") from e
            if "silent" in answer:
                print(f"{name} v{version} {server} does not answer")
            if SHOW and SHOW in name:
                print(f"{name} v{version} {server}: {json.dumps(answer)}")
            answers[server] = comparable(normal(answer) if normal else answer)
        self.steps += 1
        for path, left, right in differences(answers["kafka"], answers["millpond"]):
            self.note(f"{api} v{version} {name}", path, left, right)
        return answers

    def until_alike(self, api, version, body, seconds=60):
        """Waits until both say the same, of what comes about a moment after its request was answered; `ask` tells whether it did."""
        end = time.time() + seconds
        while time.time() < end:
            said = [comparable(self.wire.ask(server=self.addresses[s], connection="", api=api, version=version, body=body)) for s in SERVERS]
            if said[0] == said[1]:
                return
            time.sleep(0.2)

    def every(self, name, api, body=None, versions=None, **more):
        """The same in each version that both have."""
        low, high = self.common[api]
        before = self.steps
        for version in range(low, high + 1):
            if versions is None or version in versions:
                try:
                    self.ask(name, api, version, body, **more)
                except Unsupported:
                    pass
        assert self.steps > before, f"{api} {name}: no version can say that"

    def note(self, step, path, left, right):
        for index, (pattern, _) in enumerate(EXPLAINED):
            if re.search(pattern, f"{step} {path}: {json.dumps(left)} {json.dumps(right)}"):
                self.used.add(index)
                return
        self.found.append(f"{step}: {path}: Kafka {json.dumps(left)[:300]}, Millpond {json.dumps(right)[:300]}")

    def show(self):
        for line in self.found:
            print(line)

    def finish(self):
        idle = [EXPLAINED[i] for i in range(len(EXPLAINED)) if i not in self.used]
        for pattern, why in idle:
            print(f"explains nothing any more: {pattern} ({why})")
        print(f"{self.steps} steps, {len(self.found)} differences, {len(EXPLAINED)} explained")
        assert not self.found and not idle


# What only says whether a client meant what it asked, or is Kafka's own.
ASIDE = {"throttleTimeMs", "host", "port", "clusterId", "controllerId", "topicId", "memberId", "leader", "protocolName",
         "timestamp", "lastTimestamp", "transactionStartTimeMs", "finalizedFeaturesEpoch", "partitionSize", "totalBytes", "usableBytes",
         "logDir", "logAppendTimeMs", "clientHost", "partitionLeaderEpoch", "leaderId", "voters", "observers", "currentLeader"}
EPOCHS = {"leaderEpoch", "committedLeaderEpoch", "currentLeaderEpoch"}
# What names an element of a list, in order.
NAMES = ["name", "resourceName", "groupId", "topic", "topicName", "partitionIndex", "partition", "index", "partitionId", "apiKey", "feature", "configName",
         "transactionalId", "brokerId", "nodeId", "key", "user", "groupInstanceId", "instanceId", "producerId", "entityType"]


def comparable(node, name=None):
    """Without what cannot be the same: identities become whether they are there, sentences likewise, lists get keys."""
    if isinstance(node, dict):
        return {key: comparable(value, key) for key, value in node.items()}
    if isinstance(node, list):
        return keyed([comparable(value, name) for value in node])
    if name in EPOCHS:
        return "an epoch" if isinstance(node, int) and node >= 0 else node
    if name in ("errorMessage", "batchIndexErrorMessage", "documentation"):
        return node is not None and node != ""
    if name in ASIDE:
        return "nothing" if node in (None, "", -1, "AAAAAAAAAAAAAAAAAAAAAA") else "something"
    return node


def keyed(items):
    """A list as a dict by what names its elements, where that is unique; others sorted."""
    if items and all(isinstance(item, dict) for item in items):
        for name in NAMES:
            keys = [item.get(name) for item in items]
            if None not in keys and len(set(map(str, keys))) == len(keys) and "something" not in keys:
                return {f"[{key}]": {k: v for k, v in item.items() if k != name} for key, item in zip(keys, items)}
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def differences(left, right, path=""):
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            place = path + key if key.startswith("[") else f"{path}.{key}" if path else key
            if key not in left or key not in right:
                yield place, left.get(key, "(not there)"), right.get(key, "(not there)")
            else:
                yield from differences(left[key], right[key], place)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for i, (a, b) in enumerate(zip(left, right)):
            yield from differences(a, b, f"{path}[{i}]")
    elif left != right:
        yield path, left, right


def run(folder):
    addresses, started = {}, []
    for server in SERVERS:
        port = free_port()
        addresses[server] = f"127.0.0.1:{port}"
        data = os.path.join(folder, server)
        if server == "kafka":
            controller = free_port()
            os.makedirs(data)
            # kraft.sh takes a file of properties that is there.
            with open(data + "/server.properties", "w") as out:
                out.write(KAFKA.format(port=port, controller=controller, data=data))
            command = [os.path.join(servers.HERE, "kraft.sh"), data, str(port)]
        else:
            with open(folder + "/millpond.toml", "w") as out:
                out.write(MILLPOND)
            command = [servers.MILLPOND, "serve", "--data", data, "--kafka", addresses[server], "--http", "127.0.0.1:0",
                       "--config", folder + "/millpond.toml"]
        started.append(Process(server, command, folder))
    test = Differential(addresses)
    for process, server in zip(started, SERVERS):
        def ready():
            process.alive()
            answer = test.wire.ask(server=addresses[server], connection="first", api="DESCRIBE_CLUSTER", version=0, body={})
            return len(answer.get("brokers", [])) == 1
        until(f"{server} answers", lambda: quiet(ready))
    try:
        differential_steps.all_steps(test)
    finally:
        test.show()
    test.finish()
    for process in started:
        process.end()


def quiet(ready):
    try:
        return ready()
    except AssertionError as e:
        if "ended with" in str(e):
            raise
        return False


KAFKA = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=100
auto.create.topics.enable=true
transaction.max.timeout.ms=1000000
offsets.retention.minutes=20000
group.max.session.timeout.ms=1000000
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
# Gives what KAFKA gives, and what is compared else nobody gives.
MILLPOND = """[security]
authorizer = true
super_users = ["User:ANONYMOUS"]
[broker]
auto_create_topics = true
transaction_timeout_max_ms = 1000000
group_offsets_retention_ms = 1200000000
group_max_session_timeout_ms = 1000000
"""

if __name__ == "__main__":
    servers.main(run)
