import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.BrokerIdNotRegisteredException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java client itself against a server: {@code Clients BOOTSTRAP}. Admin, transactions, cooperative and static groups. */
public final class Clients {
    private static String bootstrap;
    private static String run;
    private static Admin admin;

    private static void check(boolean ok, Object text) {
        if (!ok) throw new AssertionError(text);
    }

    private interface Attempt {
        void now() throws Exception;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void refused(Class<? extends Exception> wanted, Attempt attempt) throws Exception {
        try {
            attempt.now();
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            if (!wanted.isInstance(cause)) throw e;
            return;
        }
        throw new AssertionError("no " + wanted.getSimpleName());
    }

    private static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(90);
        while (!condition.holds()) {
            check(System.nanoTime() < end, "not within 90 s: " + what);
            Thread.sleep(20);
        }
    }

    private static Properties with(Object... more) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.serializer", StringSerializer.class);
        p.put("value.serializer", StringSerializer.class);
        p.put("key.deserializer", StringDeserializer.class);
        p.put("value.deserializer", StringDeserializer.class);
        p.put("auto.offset.reset", "earliest");
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return p;
    }

    private static String create(String name, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(run + name, partitions, (short) 1))).all().get();
        return run + name;
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        run = "clients-" + Long.toString(System.currentTimeMillis(), 36) + "-";
        admin = Admin.create(with());
        try {
            administration();
            transactions();
            members("cooperative", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor", false);
            members("static", "org.apache.kafka.clients.consumer.RangeAssignor", true);
            sessions();
        } finally {
            admin.close(Duration.ofSeconds(5));
        }
    }

    private static void administration() throws Exception {
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        check(!cluster.clusterId().get().isEmpty() && cluster.nodes().get().size() == 1 && cluster.controller().get() != null, "cluster");
        admin.describeFeatures().featureMetadata().get();
        String topic = run + "admin";
        CreateTopicsResult created = admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1).configs(Map.of("retention.ms", "123456"))));
        created.all().get();
        Uuid id = created.topicId(topic).get();
        check(created.numPartitions(topic).get() == 2 && created.config(topic).get().get("retention.ms").value().equals("123456"), "created");
        refused(TopicExistsException.class, () -> admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get());
        refused(InvalidConfigurationException.class, () -> admin.createTopics(List.of(new NewTopic(run + "x", 2, (short) 1).configs(Map.of("no.such", "1")))).all().get());
        check(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name().equals(topic), "by id");
        check(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId().equals(id), "id");
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("max.message.bytes", "4000"), AlterConfigOp.OpType.SET),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
            new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
        Config config = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(resource);
        check(config.get("max.message.bytes").value().equals("4000"), config);
        check(config.get("max.message.bytes").source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG && !config.get("max.message.bytes").synonyms().isEmpty(), config);
        check(Set.of(config.get("cleanup.policy").value().split(",")).equals(Set.of("delete", "compact")), config);
        check(config.get("retention.ms").source() == ConfigEntry.ConfigSource.DEFAULT_CONFIG, config);

        try (KafkaProducer<String, String> producer = new KafkaProducer<>(with("batch.size", 100))) {
            long base = System.currentTimeMillis() - 3_600_000;
            for (int i = 0; i < 50; i++) {
                RecordMetadata m = producer.send(new ProducerRecord<>(topic, 0, base + i, "k" + i, "v" + i)).get();
                check(m.offset() == i && m.timestamp() == base + i, m);
            }
            refused(RecordTooLargeException.class, () -> producer.send(new ProducerRecord<>(topic, 0, "k", "v".repeat(9000))).get());
            TopicPartition p = new TopicPartition(topic, 0);
            check(admin.listOffsets(Map.of(p, OffsetSpec.forTimestamp(base + 20))).all().get().get(p).offset() == 20, "by time");
            var max = admin.listOffsets(Map.of(p, OffsetSpec.maxTimestamp())).all().get().get(p);
            check(max.offset() == 49 && max.timestamp() == base + 49, "greatest timestamp");
            check(admin.deleteRecords(Map.of(p, RecordsToDelete.beforeOffset(10))).lowWatermarks().get(p).get().lowWatermark() == 10, "deleted");
            check(admin.listOffsets(Map.of(p, OffsetSpec.earliest())).all().get().get(p).offset() == 10, "earliest");
            String group = run + "offsets";
            admin.alterConsumerGroupOffsets(group, Map.of(p, new OffsetAndMetadata(15, "mine"))).all().get();
            OffsetAndMetadata kept = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(p);
            check(kept.offset() == 15 && kept.metadata().equals("mine"), kept);
            admin.deleteConsumerGroupOffsets(group, Set.of(p)).all().get();
            admin.deleteConsumerGroups(List.of(group)).all().get();
            refused(GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of(group)).all().get());
            refused(BrokerIdNotRegisteredException.class, () -> admin.unregisterBroker(77).all().get());
            Set<String> dirs = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).keySet();
            check(dirs.size() == 1, dirs);
            TopicPartitionReplica replica = new TopicPartitionReplica(topic, 0, 1);
            admin.alterReplicaLogDirs(Map.of(replica, dirs.iterator().next())).all().get();
            refused(LogDirNotFoundException.class, () -> admin.alterReplicaLogDirs(Map.of(replica, "/nowhere")).all().get());
        }
        admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        refused(UnknownTopicIdException.class, () -> admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get());
    }

    private static List<String> values(String topic, int partition, int count) {
        List<String> got = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(with("isolation.level", "read_committed"))) {
            TopicPartition p = new TopicPartition(topic, partition);
            consumer.assign(List.of(p));
            long end = consumer.endOffsets(List.of(p)).get(p);
            long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while ((got.size() < count || consumer.position(p) < end) && System.nanoTime() < until) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) got.add(r.value());
            }
        }
        return got;
    }

    private static void transactions() throws Exception {
        String topic = create("transactions", 1);
        Properties p = with("transactional.id", run + "id", "transaction.timeout.ms", 30000);
        try (KafkaProducer<String, String> first = new KafkaProducer<>(p); KafkaProducer<String, String> second = new KafkaProducer<>(p)) {
            first.initTransactions();
            for (int i = 0; i < 6; i++) {
                first.beginTransaction();
                first.send(new ProducerRecord<>(topic, (i % 2 == 0 ? "yes" : "no") + i));
                if (i % 2 == 0) first.commitTransaction(); else first.abortTransaction();
            }
            first.beginTransaction();
            first.send(new ProducerRecord<>(topic, "no-fenced")).get();
            TopicPartition partition = new TopicPartition(topic, 0);
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
            check(producers.stream().anyMatch(s -> s.currentTransactionStartOffset().isPresent()), producers);
            second.initTransactions();
            try {
                first.commitTransaction();
                check(false, "a fenced producer commits");
            } catch (ProducerFencedException | InvalidProducerEpochException e) {
                // what it should be told
            }
            second.beginTransaction();
            second.send(new ProducerRecord<>(topic, "yes-second"));
            second.commitTransaction();
            check(values(topic, 0, 4).equals(List.of("yes0", "yes2", "yes4", "yes-second")), values(topic, 0, 4));
            second.beginTransaction();
            second.send(new ProducerRecord<>(topic, "no-operator")).get();
            admin.fenceProducers(List.of(run + "id")).all().get();
            boolean told = false;
            try {
                second.commitTransaction();
            } catch (KafkaException e) {
                told = true;
            }
            check(told, "fenced by an operator, and commits");
            check(values(topic, 0, 4).size() == 4, values(topic, 0, 4));
        }
    }

    /** A consumer on a thread of its own. */
    private static final class Member extends Thread implements ConsumerRebalanceListener {
        final KafkaConsumer<String, String> consumer;
        final Map<String, Integer> seen;
        final Map<TopicPartition, Member> owners;
        final Set<TopicPartition> mine = ConcurrentHashMap.newKeySet();
        final String topic;
        volatile boolean stop;
        volatile Throwable failed;

        Member(String topic, Map<String, Integer> seen, Map<TopicPartition, Member> owners, Properties p) {
            this.topic = topic;
            this.seen = seen;
            this.owners = owners;
            consumer = new KafkaConsumer<>(p);
            start();
        }

        @Override public void run() {
            try {
                consumer.subscribe(List.of(topic), this);
                while (!stop) {
                    for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(100))) seen.merge(r.value(), 1, Integer::sum);
                    commit();
                }
            } catch (Throwable e) {
                failed = e;
            } finally {
                consumer.close();
            }
        }

        private void commit() {
            try {
                consumer.commitSync();
            } catch (RebalanceInProgressException e) {
                // cooperative members are told to commit after it
            }
        }

        @Override public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            for (TopicPartition p : partitions) {
                if (owners.putIfAbsent(p, this) != null) failed = new AssertionError(p + " has two owners");
            }
            mine.addAll(partitions);
        }

        @Override public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            commit();
            for (TopicPartition p : partitions) owners.remove(p, this);
            mine.removeAll(partitions);
        }

        void end() throws Exception {
            stop = true;
            join(60000);
            check(!isAlive(), "a member does not end");
            if (failed != null) throw new AssertionError(failed);
        }
    }

    private static boolean owned(List<Member> all, int each) {
        for (Member m : all) if (m.failed != null) throw new AssertionError(m.failed);
        return all.stream().allMatch(m -> m.mine.size() == each);
    }

    private static void members(String name, String assignor, boolean fixed) throws Exception {
        String topic = create(name, 6);
        String group = run + name;
        Map<String, Integer> seen = new ConcurrentHashMap<>();
        Map<TopicPartition, Member> owners = new ConcurrentHashMap<>();
        int[] wrote = {0};
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(with("linger.ms", 5))) {
            Attempt write = () -> {
                for (int i = 0; i < 300; i++) {
                    String n = "" + wrote[0]++;
                    producer.send(new ProducerRecord<>(topic, n, n));
                }
                producer.flush();
            };
            List<Member> all = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                Properties p = with("group.id", group, "partition.assignment.strategy", assignor, "enable.auto.commit", false,
                    "session.timeout.ms", 45000, "heartbeat.interval.ms", 300, "max.poll.records", 50);
                if (fixed) p.put("group.instance.id", "instance" + i);
                all.add(new Member(topic, seen, owners, p));
                int each = 6 / all.size();
                until(name + ": " + each + " each", () -> owned(all, each));
                write.now();
            }
            var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            check(described.members().size() == 3 && described.partitionAssignor().startsWith(fixed ? "range" : "cooperative-sticky"), described);
            Member left = all.remove(0);
            left.end();
            if (fixed) {
                check(admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size() == 3, "a static member left by itself");
                admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("instance0")))).all().get();
            }
            until(name + ": three each", () -> owned(all, 3));
            write.now();
            until("all are read", () -> seen.size() == wrote[0]);
            for (Member m : all) m.end();
        }
        for (Map.Entry<String, Integer> e : new HashMap<>(seen).entrySet()) check(e.getValue() == 1, name + ": " + e.getKey() + " was read " + e.getValue() + " times");
        long committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values().stream().mapToLong(OffsetAndMetadata::offset).sum();
        check(committed == wrote[0], "committed " + committed + " of " + wrote[0]);
        if (fixed) admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all().get();
        until("the group is empty", () -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().isEmpty());
        admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    /** Many partitions of which few have something; a topic that is deleted and made again under its reader. */
    private static void sessions() throws Exception {
        String topic = create("quiet", 60);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(with("metadata.max.age.ms", 500)); KafkaProducer<String, String> producer = new KafkaProducer<>(with())) {
            Set<TopicPartition> all = new HashSet<>();
            for (int i = 0; i < 60; i++) all.add(new TopicPartition(topic, i));
            consumer.assign(all);
            List<String> got = new ArrayList<>();
            for (int round = 0; round < 3; round++) {
                for (int i = 0; i < 60; i += 7) {
                    producer.send(new ProducerRecord<>(topic, i, null, round + ":" + i)).get();
                    String wanted = round + ":" + i;
                    until(wanted, () -> {
                        for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) got.add(r.value());
                        return got.contains(wanted);
                    });
                }
                consumer.pause(List.of(new TopicPartition(topic, 7)));
                consumer.resume(List.of(new TopicPartition(topic, 7)));
            }
            check(got.size() == 27, got);
        }
    }
}
