import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams with exactly_once_v2 against a server: {@code Streams BOOTSTRAP}. Orders are joined with prices, and
 * added up by customer over a repartition topic, by two instances with a standby each; one is killed and comes back,
 * the other leaves. Every order must show exactly once in both results. Whoever reads "most is sent" may kill the server.
 */
public final class Streams {
    private static final int ORDERS = 6000;
    private static final int ITEMS = 50;
    private static final int CUSTOMERS = 20;
    private static String run;

    private static void say(String text) {
        System.out.println("streams: " + text);
    }

    private static void check(boolean ok, String text) {
        if (!ok) throw new AssertionError(text);
    }

    private static String item(int order) {
        return "item" + order % ITEMS;
    }

    private static String customer(int order) {
        return "customer" + order * 7 % CUSTOMERS;
    }

    public static void main(String[] args) throws Exception {
        if (args.length > 1) {
            instance(args[0], args[1], args[2]);
        } else {
            run = "streams-" + Long.toString(System.currentTimeMillis(), 36);
            drive(args[0]);
        }
    }

    /** One instance of the topology, until it is told to end by a line. */
    private static void instance(String bootstrap, String id, String state) throws Exception {
        run = id;
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> orders = builder.stream(run + "-orders");
        // order "customer:quantity:number" by item
        orders.join(builder.<String, String>table(run + "-prices"), (order, price) -> {
            String[] parts = order.split(":");
            return parts[2] + ":" + Long.parseLong(parts[1]) * Long.parseLong(price);
        }).to(run + "-amounts");
        orders.map((item, order) -> KeyValue.pair(order.split(":")[0], order.split(":")[1])).groupByKey()
            .aggregate(() -> 0L, (customer, quantity, sum) -> sum + Long.parseLong(quantity),
                Materialized.with(Serdes.String(), Serdes.Long()))
            .toStream().to(run + "-totals", Produced.with(Serdes.String(), Serdes.Long()));
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, run);
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        p.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        p.put(StreamsConfig.STATE_DIR_CONFIG, state);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.NUM_STANDBY_REPLICAS_CONFIG, 1);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 500);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 10000);
        p.put(StreamsConfig.REPARTITION_PURGE_INTERVAL_MS_CONFIG, 2000);
        p.put(StreamsConfig.PROBING_REBALANCE_INTERVAL_MS_CONFIG, 60000);
        KafkaStreams streams = new KafkaStreams(builder.build(), p);
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(e -> {
            e.printStackTrace();
            failed.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.setStateListener((now, before) -> System.out.println("state " + now));
        streams.start();
        System.in.read();
        streams.close(Duration.ofSeconds(60));
        System.out.println(failed.getCount() == 0 ? "ended after an exception" : "ended well");
    }

    /** A child process that runs an instance. */
    private static final class Child {
        final Process process;
        final File log;
        /** What is before this in the log is of one that was killed. */
        final int from;

        Child(String bootstrap, Path dir, String name) throws Exception {
            log = dir.resolve(name + ".log").toFile();
            from = log.exists() ? text().length() : 0;
            process = new ProcessBuilder("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", System.getProperty("java.class.path"), "Streams",
                bootstrap, run, dir.resolve(name).toString())
                .redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(log)).start();
        }

        String text() throws Exception {
            return Files.readString(log.toPath());
        }

        void running() throws Exception {
            until("an instance runs: " + log, 120, () -> {
                check(process.isAlive(), "an instance ended: " + text());
                return text().indexOf("state RUNNING", from) >= 0;
            });
        }

        void end() throws Exception {
            process.getOutputStream().write('\n');
            process.getOutputStream().close();
            check(process.waitFor(90, TimeUnit.SECONDS), "an instance does not end: " + text());
            check(text().contains("ended well"), text());
        }
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void until(String what, int seconds, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        while (!condition.holds()) {
            check(System.nanoTime() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(50);
        }
    }

    private static void drive(String bootstrap) throws Exception {
        Path dir = Files.createTempDirectory("streams");
        List<Child> children = new ArrayList<>();
        Properties common = new Properties();
        common.put(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        try (Admin admin = Admin.create(common)) {
            admin.createTopics(List.of(new NewTopic(run + "-orders", 4, (short) 1), new NewTopic(run + "-prices", 4, (short) 1),
                new NewTopic(run + "-amounts", 2, (short) 1), new NewTopic(run + "-totals", 2, (short) 1))).all().get();
            Properties p = new Properties();
            p.putAll(common);
            p.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
            p.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
            KafkaProducer<String, String> producer = new KafkaProducer<>(p);
            for (int i = 0; i < ITEMS; i++) producer.send(new ProducerRecord<>(run + "-prices", "item" + i, "" + (i + 1)));
            producer.flush();
            Child first = new Child(bootstrap, dir, "first");
            children.add(first);
            first.running();
            // A table's rows count for what comes after them.
            until("prices are read", 120, () -> admin.listConsumerGroupOffsets(run).partitionsToOffsetAndMetadata().get().entrySet()
                .stream().filter(e -> e.getKey().topic().equals(run + "-prices")).mapToLong(e -> e.getValue().offset()).sum() >= ITEMS);
            say("one instance runs");
            Child second = new Child(bootstrap, dir, "second");
            children.add(second);
            for (int i = 0; i < ORDERS; i++) {
                producer.send(new ProducerRecord<>(run + "-orders", item(i), customer(i) + ":" + (i % 9 + 1) + ":" + i));
                if (i % 10 == 0) Thread.sleep(10);
                if (i == ORDERS / 4) second.running();
                if (i == ORDERS / 2) {
                    first.process.destroyForcibly().waitFor();
                    say("killed one of two in the middle");
                    first = new Child(bootstrap, dir, "first"); // over the state that the killed one left
                    children.add(first);
                }
                if (i == ORDERS * 4 / 5) {
                    first.running();
                    say("most is sent");
                }
                if (i == ORDERS * 9 / 10) {
                    second.end();
                    say("the other left");
                }
            }
            producer.flush();
            producer.close();

            Map<Integer, Integer> amounts = new HashMap<>();
            Map<String, Long> totals = new TreeMap<>();
            Map<String, Integer> updates = new HashMap<>();
            Map<String, Long> wanted = new TreeMap<>();
            Map<String, Integer> count = new HashMap<>();
            for (int i = 0; i < ORDERS; i++) {
                wanted.merge(customer(i), i % 9 + 1L, Long::sum);
                count.merge(customer(i), 1, Integer::sum);
            }
            Properties c = new Properties();
            c.putAll(common);
            c.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
            c.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
            c.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
            c.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, org.apache.kafka.common.serialization.ByteArrayDeserializer.class);
            try (KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(c)) {
                List<TopicPartition> all = new ArrayList<>();
                for (int i = 0; i < 2; i++) all.addAll(List.of(new TopicPartition(run + "-amounts", i), new TopicPartition(run + "-totals", i)));
                consumer.assign(all);
                until("all results: " + amounts.size() + " " + totals, 120, () -> {
                    for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                        if (r.topic().endsWith("-amounts")) {
                            String[] parts = new String(r.value()).split(":");
                            int order = Integer.parseInt(parts[0]);
                            amounts.merge(order, 1, Integer::sum);
                            long amount = (order % 9 + 1L) * (order % ITEMS + 1);
                            check(Long.parseLong(parts[1]) == amount, "order " + order + " has the amount " + parts[1]);
                        } else {
                            long sum = java.nio.ByteBuffer.wrap(r.value()).getLong();
                            check(sum > totals.getOrDefault(r.key(), 0L), r.key() + " went from " + totals.get(r.key()) + " to " + sum);
                            totals.put(r.key(), sum);
                            updates.merge(r.key(), 1, Integer::sum);
                        }
                    }
                    return amounts.size() == ORDERS && totals.equals(wanted);
                });
                for (Map.Entry<Integer, Integer> e : amounts.entrySet()) check(e.getValue() == 1, "order " + e.getKey() + " shows " + e.getValue() + " times");
                check(updates.equals(count), "updates of totals: " + updates + " for " + count);
            }
            say(ORDERS + " orders, each exactly once in join and aggregate");

            TreeMap<String, String> policies = new TreeMap<>();
            for (TopicDescription d : admin.describeTopics(admin.listTopics().names().get().stream().filter(n -> n.startsWith(run + "-K")).toList()).allTopicNames().get().values()) {
                ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, d.name());
                policies.put(d.name().replaceAll(".*-", ""), admin.describeConfigs(List.of(topic)).all().get().get(topic).get("cleanup.policy").value());
            }
            check("compact".equals(policies.get("changelog")) && "delete".equals(policies.get("repartition")), "internal topics: " + policies);
            // Streams deletes what it has read of a repartition topic.
            String repartition = admin.listTopics().names().get().stream().filter(n -> n.endsWith("-repartition")).findFirst().get();
            until("records of the repartition topic are deleted", 120, () -> {
                long start = 0;
                Map<TopicPartition, org.apache.kafka.clients.admin.OffsetSpec> ask = new HashMap<>();
                for (int i = 0; i < 4; i++) ask.put(new TopicPartition(repartition, i), org.apache.kafka.clients.admin.OffsetSpec.earliest());
                for (var e : admin.listOffsets(ask).all().get().values()) start += e.offset();
                return start > 0;
            });
            first.end();
            until("the group is empty", 120, () -> admin.describeConsumerGroups(List.of(run)).all().get().get(run).members().isEmpty());
            say("repartition topic purged, group left");
            say("ok");
        } catch (Throwable e) {
            for (Child child : children) {
                String text = child.text();
                System.err.println(child.log + ":\n" + text.substring(Math.max(0, text.length() - 6000)));
            }
            throw e;
        } finally {
            for (Child child : children) child.process.destroyForcibly();
            try (var paths = Files.walk(dir)) {
                paths.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
            }
        }
    }
}
