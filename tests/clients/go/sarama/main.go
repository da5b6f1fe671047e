// sarama against a server: sarama BOOTSTRAP. Exits non-zero on any failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

var (
	bootstrap []string
	run       = "sarama-" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	admin     sarama.ClusterAdmin
)

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func none(err error) { check(err == nil, "%v", err) }

func must[T any](value T, err error) T {
	none(err)
	return value
}

func say(format string, args ...any) { fmt.Printf("sarama: "+format+"\n", args...) }

func config(version sarama.KafkaVersion) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = version
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 45 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	c.Metadata.Retry.Backoff = 50 * time.Millisecond
	return c
}

func create(name string, partitions int32) string {
	none(admin.CreateTopic(run+"-"+name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false))
	return run + "-" + name
}

func read(topic string, partition int32, count int, c *sarama.Config) []*sarama.ConsumerMessage {
	consumer := must(sarama.NewConsumer(bootstrap, c))
	defer consumer.Close()
	part := must(consumer.ConsumePartition(topic, partition, sarama.OffsetOldest))
	defer part.Close()
	var out []*sarama.ConsumerMessage
	late := time.After(60 * time.Second)
	for len(out) < count {
		select {
		case m := <-part.Messages():
			out = append(out, m)
		case <-late:
			check(false, "%d of %d records of %s", len(out), count, topic)
		}
	}
	return out
}

// codecs speaks as clients of several releases do, which send different versions.
func codecs() {
	for _, version := range []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.V2_1_0_0, sarama.V2_8_0_0, sarama.MaxVersion} {
		topic, count := create("codecs-"+version.String(), 1), 0
		for _, codec := range []sarama.CompressionCodec{
			sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
		} {
			if codec == sarama.CompressionZSTD && !version.IsAtLeast(sarama.V2_1_0_0) {
				continue
			}
			c := config(version)
			c.Producer.Compression = codec
			c.Producer.Idempotent = true
			c.Net.MaxOpenRequests = 1
			producer := must(sarama.NewSyncProducer(bootstrap, c))
			var batch []*sarama.ProducerMessage
			for range 100 {
				batch = append(batch, &sarama.ProducerMessage{
					Topic: topic, Key: sarama.StringEncoder(strconv.Itoa(count)), Value: sarama.StringEncoder(fmt.Sprintf("%0100d", count)),
					Headers: []sarama.RecordHeader{{Key: []byte("h"), Value: []byte("1")}, {Key: []byte("h"), Value: []byte("2")}},
				})
				count++
			}
			none(producer.SendMessages(batch))
			none(producer.Close())
		}
		for i, m := range read(topic, 0, count, config(version)) {
			check(string(m.Key) == strconv.Itoa(i) && m.Offset == int64(i) && len(m.Headers) == 2, "%s: record %d: %s", version, i, m.Key)
			check(string(m.Value) == fmt.Sprintf("%0100d", i), "%s: record %d", version, i)
		}
	}
	say("codecs, headers, idempotence as 0.11, 2.1, 2.8 and %s", sarama.MaxVersion)
}

func offsets() {
	topic := create("times", 1)
	client := must(sarama.NewClient(bootstrap, config(sarama.V2_8_0_0)))
	defer client.Close()
	producer := must(sarama.NewSyncProducerFromClient(client))
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for n := range 100 {
		must2(producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(strconv.Itoa(n)), Timestamp: base.Add(time.Duration(n) * time.Second)}))
	}
	check(must(client.GetOffset(topic, 0, sarama.OffsetNewest)) == 100 && must(client.GetOffset(topic, 0, sarama.OffsetOldest)) == 0, "ends")
	check(must(client.GetOffset(topic, 0, base.UnixMilli()+41_500)) == 42, "by time")
	none(admin.DeleteRecords(topic, map[int32]int64{0: 30}))
	check(must(client.GetOffset(topic, 0, sarama.OffsetOldest)) == 30, "deleted records")
	manager := must(sarama.NewOffsetManagerFromClient(run+"-manual", client))
	part := must(manager.ManagePartition(topic, 0))
	part.MarkOffset(55, "mine")
	manager.Commit()
	none(part.Close())
	none(manager.Close())
	kept := must(admin.ListConsumerGroupOffsets(run+"-manual", map[string][]int32{topic: {0}})).GetBlock(topic, 0)
	check(kept.Offset == 55 && kept.Metadata == "mine", "%v", kept)
	none(admin.DeleteConsumerGroupOffset(run+"-manual", topic, 0))
	kept = must(admin.ListConsumerGroupOffsets(run+"-manual", map[string][]int32{topic: {0}})).GetBlock(topic, 0)
	check(kept.Offset == -1, "%v", kept)
	none(admin.DeleteConsumerGroup(run + "-manual"))
	say("offsets by time, deleted records, committed offsets")
}

func must2[A, B any](a A, b B, err error) (A, B) {
	none(err)
	return a, b
}

// member is one of a group: it counts what it reads.
type member struct {
	lock  *sync.Mutex
	seen  map[string]int
	mine  int
	group sarama.ConsumerGroup
	over  chan struct{}
	stop  context.CancelFunc
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.mine = 0
	for _, p := range s.Claims() {
		m.mine += len(p)
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.lock.Lock()
		m.seen[string(message.Value)]++
		m.lock.Unlock()
		s.MarkMessage(message, "")
	}
	return nil
}

func join(name, topic string, strategy sarama.BalanceStrategy, instance string, lock *sync.Mutex, seen map[string]int) *member {
	c := config(sarama.V2_8_0_0)
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	c.Consumer.Group.InstanceId = instance
	m := &member{lock: lock, seen: seen, group: must(sarama.NewConsumerGroup(bootstrap, name, c)), over: make(chan struct{})}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	go func() {
		defer close(m.over)
		for ctx.Err() == nil {
			if err := m.group.Consume(ctx, []string{topic}, m); errors.Is(err, sarama.ErrClosedConsumerGroup) {
				return
			} else {
				none(err)
			}
		}
	}()
	return m
}

func (m *member) leave() {
	m.stop()
	<-m.over
	none(m.group.Close())
}

func until(what string, ready func() bool) {
	for end := time.Now().Add(90 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		check(time.Now().Before(end), "not within 90 s: %s", what)
	}
}

func groups() {
	for _, one := range []struct {
		name     string
		strategy sarama.BalanceStrategy
		instance string
	}{
		{"range", sarama.NewBalanceStrategyRange(), ""}, {"roundrobin", sarama.NewBalanceStrategyRoundRobin(), ""},
		{"sticky", sarama.NewBalanceStrategySticky(), ""}, {"static", sarama.NewBalanceStrategyRange(), "one"},
	} {
		topic, group := create("group-"+one.name, 4), run+"-"+one.name
		var lock sync.Mutex
		seen, wrote := map[string]int{}, 0
		owns := func(n int, all ...*member) func() bool {
			return func() bool {
				lock.Lock()
				defer lock.Unlock()
				for _, m := range all {
					if m.mine != n {
						return false
					}
				}
				return true
			}
		}
		producer := must(sarama.NewSyncProducer(bootstrap, config(sarama.V2_8_0_0)))
		write := func() {
			var batch []*sarama.ProducerMessage
			for range 200 {
				batch = append(batch, &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(strconv.Itoa(wrote)), Value: sarama.StringEncoder(strconv.Itoa(wrote))})
				wrote++
			}
			none(producer.SendMessages(batch))
		}
		read := func() bool { lock.Lock(); defer lock.Unlock(); return len(seen) == wrote }
		// What is not committed when the members change is read again.
		committed := func() bool {
			kept, sum := must(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}})), int64(0)
			for p := range int32(4) {
				sum += max(kept.GetBlock(topic, p).Offset, 0)
			}
			return sum == int64(wrote)
		}
		first := join(group, topic, one.strategy, one.instance, &lock, seen)
		until("first owns all", owns(4, first))
		write()
		until("all are read", read)
		until("all is committed", committed)
		second := join(group, topic, one.strategy, "", &lock, seen)
		until("two each", owns(2, first, second))
		write()
		until("all are read", read)
		described := must(admin.DescribeConsumerGroups([]string{group}))[0]
		check(described.State == "Stable" && len(described.Members) == 2, "%v", described)
		until("all is committed", committed)
		first.leave()
		if one.instance != "" { // a static member goes only when it is told to
			left := must(admin.RemoveMemberFromConsumerGroup(group, []string{one.instance}))
			check(left.Err == sarama.ErrNoError && left.Members[0].Err == sarama.ErrNoError, "%v", left)
		}
		until("the other owns all", owns(4, second))
		write()
		until("all are read", read)
		second.leave()
		for value, n := range seen {
			check(n == 1, "%s: %s was read %d times", one.name, value, n)
		}
		none(producer.Close())
		none(admin.DeleteConsumerGroup(group))
	}
	say("groups: three balancers, static members")
}

// copyOnce copies a topic in transactions with the offsets of a group.
func copyOnce() {
	const count, each = 1000, 50
	source, sink := create("source", 1), create("sink", 1)
	c := config(sarama.V2_8_0_0)
	producer := must(sarama.NewSyncProducer(bootstrap, c))
	var batch []*sarama.ProducerMessage
	for n := range count {
		batch = append(batch, &sarama.ProducerMessage{Topic: source, Value: sarama.StringEncoder(strconv.Itoa(n))})
	}
	none(producer.SendMessages(batch))
	none(producer.Close())
	group, aborted := run+"-copy", 0
	transactional := func() sarama.SyncProducer {
		c := config(sarama.V2_8_0_0)
		c.Producer.Idempotent = true
		c.Producer.Transaction.ID = run + "-copy"
		c.Producer.Transaction.Timeout = 20 * time.Second
		c.Net.MaxOpenRequests = 1
		return must(sarama.NewSyncProducer(bootstrap, c))
	}
	producer = transactional()
	at := int64(0)
	for round := 0; at < count; round++ {
		consumer := must(sarama.NewConsumer(bootstrap, config(sarama.V2_8_0_0)))
		part := must(consumer.ConsumePartition(source, 0, at))
		none(producer.BeginTxn())
		for n := range int64(each) {
			m := <-part.Messages()
			check(m.Offset == at+n, "offset %d", m.Offset)
			must2(producer.SendMessage(&sarama.ProducerMessage{Topic: sink, Value: sarama.ByteEncoder(m.Value)}))
		}
		none(producer.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{source: {{Partition: 0, Offset: at + each}}}, group))
		switch round % 5 {
		case 1:
			none(producer.AbortTxn())
			aborted++
		case 3: // another of the same id takes over, which aborts what is open
			next := transactional()
			check(producer.CommitTxn() != nil, "a fenced producer committed")
			producer.Close()
			producer = next
			aborted++
		default:
			none(producer.CommitTxn())
			at += each
		}
		none(part.Close())
		none(consumer.Close())
	}
	none(producer.Close())
	until("the group's offset", func() bool {
		return must(admin.ListConsumerGroupOffsets(group, map[string][]int32{source: {0}})).GetBlock(source, 0).Offset == count
	})
	c = config(sarama.V2_8_0_0)
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	for i, m := range read(sink, 0, count, c) {
		check(string(m.Value) == strconv.Itoa(i), "record %d is %s", i, m.Value)
	}
	say("exactly once: %d records, %d transactions aborted or cut", count, aborted)
}

func administration() {
	topic := create("admin", 1)
	none(admin.CreatePartitions(topic, 3, nil, false))
	until("three partitions", func() bool { return len(must(admin.DescribeTopics([]string{topic}))[0].Partitions) == 3 })
	value := "123456"
	none(admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false))
	entries := must(admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}}))
	check(len(entries) == 1 && entries[0].Value == value && entries[0].Source == sarama.SourceTopic, "%v", entries)
	bytes := "2000000"
	none(admin.AlterConfig(sarama.TopicResource, topic, map[string]*string{"max.message.bytes": &bytes}, false))
	listed := must(admin.ListTopics())[topic]
	check(listed.NumPartitions == 3 && *listed.ConfigEntries["max.message.bytes"] == bytes && listed.ConfigEntries["retention.ms"] == nil, "%v", listed)
	err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	check(errors.Is(err, sarama.ErrTopicAlreadyExists), "%v", err)
	brokers, controller, err := admin.DescribeCluster()
	check(err == nil && len(brokers) == 1 && controller == brokers[0].ID(), "%v %v", brokers, err)
	dirs := must(admin.DescribeLogDirs([]int32{controller}))
	check(len(dirs[controller]) > 0, "%v", dirs)
	_, err = admin.ListAcls(sarama.AclFilter{ResourceType: sarama.AclResourceAny, ResourcePatternTypeFilter: sarama.AclPatternAny, Operation: sarama.AclOperationAny, PermissionType: sarama.AclPermissionAny})
	check(err == nil || errors.Is(err, sarama.ErrSecurityDisabled), "%v", err)
	groups := must(admin.ListConsumerGroups())
	check(groups != nil, "no groups")
	none(admin.DeleteTopic(topic))
	until("gone", func() bool { _, there := must(admin.ListTopics())[topic]; return !there })
	say("administration")
}

func main() {
	bootstrap = []string{os.Args[1]}
	go func() {
		time.Sleep(380 * time.Second)
		fmt.Fprintln(os.Stderr, "sarama: FAILED: not ready within 380 s")
		os.Exit(1)
	}()
	admin = must(sarama.NewClusterAdmin(bootstrap, config(sarama.V2_8_0_0)))
	codecs()
	offsets()
	administration()
	groups()
	copyOnce()
	none(admin.Close())
	say("ok")
}
