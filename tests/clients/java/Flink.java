import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.util.CloseableIterator;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Flink's Kafka connector against a server: {@code Flink BOOTSTRAP}. A job copies a topic with an exactly-once sink; it
 * fails once by itself, then its process is killed, and another goes on from the last checkpoint, which ends
 * transactions that the dead one had begun. Every record must be there once.
 */
public final class Flink {
    private static final int COUNT = 3000;
    private static final int PARTITIONS = 3;
    private static final long START = System.currentTimeMillis() - 3_600_000;

    private static void say(String text) {
        System.out.println("flink: " + text);
    }

    private static void check(boolean ok, String text) {
        if (!ok) throw new AssertionError(text);
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 1) {
            job(args[0], args[1], args[2], args[3], args.length > 4 ? args[4] : null);
        } else {
            drive(args[0]);
            System.exit(0);
        }
    }

    private static KafkaSource<String> source(String bootstrap, String run, OffsetsInitializer from, boolean bounded) {
        var source = KafkaSource.<String>builder().setBootstrapServers(bootstrap).setTopics(run + "-in").setGroupId(run)
            .setStartingOffsets(from).setProperty("partition.discovery.interval.ms", "1000")
            .setProperty("commit.offsets.on.checkpoint", "true").setValueOnlyDeserializer(new SimpleStringSchema());
        return (bounded ? source.setBounded(OffsetsInitializer.latest()) : source).build();
    }

    /** Fails once, when it has seen some records of a process's life. */
    public static final class Failing implements MapFunction<String, String> {
        private static final java.util.concurrent.atomic.AtomicInteger SEEN = new java.util.concurrent.atomic.AtomicInteger();
        private final boolean fails;

        Failing(boolean fails) {
            this.fails = fails;
        }

        @Override public String map(String value) {
            if (fails && SEEN.incrementAndGet() == COUNT / 4) throw new IllegalStateException("as wanted");
            return value;
        }
    }

    private static void job(String bootstrap, String run, String dir, String naming, String restore) throws Exception {
        Configuration c = new Configuration();
        c.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + dir);
        c.set(CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION, ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        c.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofMillis(300));
        c.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        c.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, 3);
        c.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofMillis(100));
        if (restore != null) c.set(StateRecoveryOptions.SAVEPOINT_PATH, restore);
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(2, c);
        env.fromSource(source(bootstrap, run, OffsetsInitializer.earliest(), false), WatermarkStrategy.noWatermarks(), "in")
            .uid("in").map(new Failing(restore == null)).uid("map")
            .sinkTo(sink(bootstrap, run, naming)).uid("out");
        env.execute(run);
    }

    /** How long a transaction may take: once what is asked for, once what the connector asks for of its own accord. */
    private static int timeout(String naming) {
        return naming.equals("POOLING") ? 3_600_000 : 300_000;
    }

    private static KafkaSink<String> sink(String bootstrap, String run, String naming) {
        var sink = KafkaSink.<String>builder().setBootstrapServers(bootstrap).setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .setTransactionalIdPrefix(run).setTransactionNamingStrategy(TransactionNamingStrategy.valueOf(naming))
            .setRecordSerializer(KafkaRecordSerializationSchema.builder().setTopic(run + "-out")
                .setValueSerializationSchema(new SimpleStringSchema()).build());
        if (!naming.equals("POOLING")) sink.setProperty("transaction.timeout.ms", "" + timeout(naming));
        return sink.build();
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
        while (!condition.holds()) {
            check(System.nanoTime() < end, "not within 120 s: " + what);
            Thread.sleep(50);
        }
    }

    private static Process start(List<String> command, File log) throws Exception {
        return new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start();
    }

    /** The newest checkpoint that is whole, by its number: the one before it may just have been about to be deleted. */
    private static Path checkpoint(Path dir) throws Exception {
        try (var paths = Files.walk(dir)) {
            return paths.filter(p -> p.endsWith("_metadata")).map(Path::getParent)
                .max(java.util.Comparator.comparingLong(p -> Long.parseLong(p.getFileName().toString().substring("chk-".length())))).orElse(null);
        }
    }

    private static void drive(String bootstrap) throws Exception {
        Map<String, Object> common = new HashMap<>();
        common.put("bootstrap.servers", bootstrap);
        common.put("key.serializer", StringSerializer.class);
        common.put("value.serializer", StringSerializer.class);
        common.put("key.deserializer", StringDeserializer.class);
        common.put("value.deserializer", StringDeserializer.class);
        common.put("auto.offset.reset", "earliest");
        common.put("isolation.level", "read_committed");
        for (String naming : List.of("INCREMENTING", "POOLING")) {
            String run = "flink-" + naming.toLowerCase() + "-" + Long.toString(System.currentTimeMillis(), 36);
            Path dir = Files.createTempDirectory("flink");
            File log = dir.resolve("log").toFile();
            Process process = null;
            try (Admin admin = Admin.create(common); KafkaProducer<String, String> producer = new KafkaProducer<>(common);
                KafkaConsumer<String, String> consumer = new KafkaConsumer<>(common)) {
                admin.createTopics(List.of(new NewTopic(run + "-in", PARTITIONS, (short) 1), new NewTopic(run + "-out", 1, (short) 1))).all().get();
                List<String> command = new ArrayList<>(List.of("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "-Dorg.slf4j.simpleLogger.log.org.apache.flink.metrics=error", "-cp", System.getProperty("java.class.path"),
                    "--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED",
                    "--add-opens=java.base/java.time=ALL-UNNAMED", "Flink", bootstrap, run, dir.toString(), naming));
                process = start(command, log);
                Map<String, Integer> seen = new HashMap<>();
                consumer.assign(List.of(new TopicPartition(run + "-out", 0)));
                Condition more = () -> {
                    for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(100))) seen.merge(r.value(), 1, Integer::sum);
                    return true;
                };
                for (int i = 0; i < COUNT; i++) {
                    producer.send(new ProducerRecord<>(run + "-in", i % PARTITIONS, START + i, null, "" + i));
                    if (i % 10 == 0) Thread.sleep(10);
                    if (i == COUNT / 2) {
                        producer.flush();
                        until("some are copied, after a failure", () -> more.holds() && seen.size() > COUNT / 3 && Files.readString(log.toPath()).contains("as wanted"));
                        process.destroyForcibly().waitFor();
                        Path last = checkpoint(dir);
                        check(last != null, "no checkpoint in " + dir);
                        command.add(last.toString());
                        process = start(command, log);
                    }
                }
                producer.flush();
                Process running = process;
                until("all are copied", () -> {
                    check(running.isAlive(), "the job ended");
                    return more.holds() && seen.size() == COUNT;
                });
                Thread.sleep(500);
                more.holds();
                for (Map.Entry<String, Integer> e : seen.entrySet()) check(e.getValue() == 1, e.getKey() + " is there " + e.getValue() + " times");
                until("the group's offsets", () -> admin.listConsumerGroupOffsets(run).partitionsToOffsetAndMetadata().get().values()
                    .stream().mapToLong(o -> o.offset()).sum() == COUNT);
                var ids = admin.listTransactions().all().get().stream().map(t -> t.transactionalId()).filter(id -> id.startsWith(run)).toList();
                check(!ids.isEmpty(), "no transactional ids of " + run);
                for (var t : admin.describeTransactions(ids).all().get().values())
                    check(t.transactionTimeoutMs() == timeout(naming), "a transaction may take " + t.transactionTimeoutMs() + " ms");
                process.destroy();
                check(process.waitFor(60, TimeUnit.SECONDS), "the job does not end");
                say(naming + ": " + COUNT + " records exactly once, after a failure and a kill; offsets committed");
                if (naming.equals("POOLING")) {
                    int half = 0;
                    Configuration c = new Configuration();
                    try (CloseableIterator<String> records = StreamExecutionEnvironment.createLocalEnvironment(1, c)
                        .fromSource(source(bootstrap, run, OffsetsInitializer.timestamp(START + COUNT / 2), true), WatermarkStrategy.noWatermarks(), "in")
                        .executeAndCollect()) {
                        for (; records.hasNext(); records.next()) half++;
                    }
                    check(half == COUNT - COUNT / 2, half + " records from a time on");
                    say("source from a time on to the end");
                }
            } catch (Throwable e) {
                System.err.println(run);
                String text = log.exists() ? Files.readString(log.toPath()) : "";
                System.err.println(text.substring(Math.max(0, text.length() - 6000)));
                throw e;
            } finally {
                if (process != null) process.destroyForcibly();
                try (var paths = Files.walk(dir)) {
                    paths.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
                }
            }
        }
        say("ok");
    }
}
