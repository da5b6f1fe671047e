// segmentio's kafka-go against a server: segmentio BOOTSTRAP. Exits non-zero on any failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

var (
	bootstrap string
	run       = "segmentio-" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	ctx       context.Context
	client    *kafka.Client
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

func say(format string, args ...any) { fmt.Printf("kafka-go: "+format+"\n", args...) }

func until(what string, ready func() bool) {
	for range 900 {
		if ready() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	check(false, "not within 90 s: %s", what)
}

func create(name string, partitions int, settings ...kafka.ConfigEntry) string {
	topic := run + "-" + name
	answer := must(client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: settings},
	}}))
	none(answer.Errors[topic])
	return topic
}

func writer(topic string) *kafka.Writer {
	return &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, BatchTimeout: 5 * time.Millisecond, RequiredAcks: kafka.RequireAll,
		Balancer: &kafka.Murmur2Balancer{Consistent: true}, Transport: client.Transport,
	}
}

func reader(change func(*kafka.ReaderConfig)) *kafka.Reader {
	settings := kafka.ReaderConfig{
		Brokers: []string{bootstrap}, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
		HeartbeatInterval: 100 * time.Millisecond, SessionTimeout: 45 * time.Second, RebalanceTimeout: 20 * time.Second,
		JoinGroupBackoff: 50 * time.Millisecond, StartOffset: kafka.FirstOffset, ReadBackoffMin: 20 * time.Millisecond,
		PartitionWatchInterval: 200 * time.Millisecond,
	}
	change(&settings)
	return kafka.NewReader(settings)
}

func read(topic string, count int) []kafka.Message {
	r := reader(func(c *kafka.ReaderConfig) { c.Topic = topic })
	defer r.Close()
	late, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var out []kafka.Message
	for range count {
		out = append(out, must(r.ReadMessage(late)))
	}
	return out
}

func codecs() {
	topic, count := create("codecs", 1), 0
	base := time.UnixMilli(1_700_000_000_000)
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		w := writer(topic)
		w.Compression = codec
		var batch []kafka.Message
		for range 200 {
			batch = append(batch, kafka.Message{
				Key: []byte(strconv.Itoa(count)), Value: fmt.Appendf(nil, "%0100d", count), Time: base.Add(time.Duration(count) * time.Second),
				Headers: []kafka.Header{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")}},
			})
			count++
		}
		none(w.WriteMessages(ctx, batch...))
		none(w.Close())
	}
	for i, m := range read(topic, count) {
		check(string(m.Key) == strconv.Itoa(i) && m.Offset == int64(i) && len(m.Headers) == 2 && m.Time.Equal(base.Add(time.Duration(i)*time.Second)), "record %d: %+v", i, m)
		check(string(m.Value) == fmt.Sprintf("%0100d", i), "record %d", i)
	}

	// One connection, as users of the lower API have it.
	conn := must(kafka.DialLeader(ctx, "tcp", bootstrap, topic, 0))
	defer conn.Close()
	first, last, err := conn.ReadOffsets()
	check(err == nil && first == 0 && last == 1000, "%d %d %v", first, last, err)
	check(must(conn.ReadOffset(base.Add(41500*time.Millisecond))) == 42, "by time")
	check(must(conn.Seek(10, kafka.SeekEnd)) == 990, "seek")
	batch := conn.ReadBatch(1, 1<<20)
	check(string(must(batch.ReadMessage()).Key) == "990" && batch.HighWaterMark() == 1000, "batch")
	none(batch.Close())
	must(conn.WriteCompressedMessages(kafka.Lz4.Codec(), kafka.Message{Value: []byte("by hand")}))
	_, last, _ = conn.ReadOffsets()
	check(last == 1001, "%d", last)
	check(must(conn.Controller()).ID == must(conn.Brokers())[0].ID, "controller")

	keyed := create("keyed", 8)
	w := writer(keyed)
	none(w.WriteMessages(ctx, kafka.Message{Key: []byte("a")}, kafka.Message{Key: []byte("millpond")}))
	none(w.Close())
	ends := must(client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		keyed: {kafka.LastOffsetOf(4), kafka.LastOffsetOf(5), kafka.LastOffsetOf(6)},
	}})).Topics[keyed]
	slices.SortFunc(ends, func(a, b kafka.PartitionOffsets) int { return a.Partition - b.Partition })
	check(ends[0].LastOffset == 1 && ends[1].LastOffset == 1 && ends[2].LastOffset == 0, "%+v", ends)
	say("codecs, headers, murmur2, one connection, offsets by time")
}

// groups has members come and go, under each of its balancers.
func groups() {
	for _, balancer := range []kafka.GroupBalancer{kafka.RangeGroupBalancer{}, kafka.RoundRobinGroupBalancer{}} {
		topic, group := create(balancer.ProtocolName(), 4), run+"-"+balancer.ProtocolName()
		var lock sync.Mutex
		seen, by := map[string]int{}, map[string]int{}
		join := func(name string) func() {
			r := reader(func(c *kafka.ReaderConfig) {
				c.GroupID, c.GroupTopics, c.GroupBalancers = group, []string{topic}, []kafka.GroupBalancer{balancer}
				c.WatchPartitionChanges = true
			})
			over := make(chan struct{})
			stop, cancel := context.WithCancel(ctx)
			go func() {
				defer close(over)
				for {
					m, err := r.FetchMessage(stop)
					if errors.Is(err, context.Canceled) {
						return
					}
					none(err)
					lock.Lock()
					seen[fmt.Sprintf("%d/%d", m.Partition, m.Offset)]++
					by[name]++
					lock.Unlock()
					if err := r.CommitMessages(stop, m); !errors.Is(err, context.Canceled) {
						none(err)
					}
				}
			}()
			return func() { cancel(); <-over; none(r.Close()) }
		}
		w := writer(topic)
		w.Balancer = &kafka.RoundRobin{}
		produce := func(count int) {
			batch := make([]kafka.Message, count)
			for i := range batch {
				batch[i].Value = []byte("v")
			}
			none(w.WriteMessages(ctx, batch...))
		}
		read := func(total int, names ...string) {
			until(fmt.Sprintf("%d are read, by %v", total, names), func() bool {
				lock.Lock()
				defer lock.Unlock()
				for _, name := range names {
					if by[name] == 0 {
						return false
					}
				}
				return len(seen) == total
			})
		}
		members := func(count int) {
			until(fmt.Sprintf("%d members", count), func() bool {
				told := must(client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
				none(told.Error)
				assigned := 0
				for _, member := range told.Members {
					for _, one := range member.MemberAssignments.Topics {
						assigned += len(one.Partitions)
					}
				}
				return told.GroupState == "Stable" && len(told.Members) == count && assigned >= 4
			})
		}
		first := join("first")
		members(1)
		produce(200)
		read(200, "first")
		second := join("second")
		members(2)
		produce(200)
		read(400, "first", "second")
		first()
		members(1)
		produce(100)
		read(500)
		none(must(client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 6}}})).Errors[topic])
		before := len(seen)
		until("the new partitions are read", func() bool {
			none(w.WriteMessages(ctx, kafka.Message{Value: []byte("v")}, kafka.Message{Value: []byte("v")}, kafka.Message{Value: []byte("v")}))
			lock.Lock()
			defer lock.Unlock()
			return seen["4/0"] > 0 && seen["5/0"] > 0
		})
		check(before == 500, "%d", before)
		second()
		none(w.Close())
		told := must(client.ConsumerOffsets(ctx, kafka.TopicAndGroup{Topic: topic, GroupId: group}))
		sum := int64(0)
		for _, offset := range told {
			sum += max(offset, 0)
		}
		check(sum >= 500, "committed: %v", told)
		listed := must(client.ListGroups(ctx, &kafka.ListGroupsRequest{}))
		check(slices.ContainsFunc(listed.Groups, func(g kafka.ListGroupsResponseGroup) bool { return g.GroupID == group && g.ProtocolType == "consumer" }), "%v", listed.Groups)
		none(must(client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})).Error)
		none(must(client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})).Errors[group])
	}
	say("groups by two balancers, members that come and go, partitions that are added")
}

func transactions() {
	topic, id := create("txn", 1), run+"-txn"
	begin := func() *kafka.ProducerSession {
		answer := must(client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: id, TransactionTimeoutMs: 30000, ProducerID: -1, ProducerEpoch: -1}))
		none(answer.Error)
		return answer.Producer
	}
	var old *kafka.ProducerSession
	for round, commit := range []bool{true, false} {
		session := begin()
		check(old == nil || session.ProducerID == old.ProducerID && session.ProducerEpoch > old.ProducerEpoch, "%v then %v", old, session)
		added := must(client.AddPartitionsToTxn(ctx, &kafka.AddPartitionsToTxnRequest{
			TransactionalID: id, ProducerID: session.ProducerID, ProducerEpoch: session.ProducerEpoch,
			Topics: map[string][]kafka.AddPartitionToTxn{topic: {{Partition: 0}}},
		}))
		none(added.Topics[topic][0].Error)
		none(must(client.AddOffsetsToTxn(ctx, &kafka.AddOffsetsToTxnRequest{
			TransactionalID: id, ProducerID: session.ProducerID, ProducerEpoch: session.ProducerEpoch, GroupID: id,
		})).Error)
		committed := must(client.TxnOffsetCommit(ctx, &kafka.TxnOffsetCommitRequest{
			TransactionalID: id, GroupID: id, ProducerID: session.ProducerID, ProducerEpoch: session.ProducerEpoch, GenerationID: -1,
			Topics: map[string][]kafka.TxnOffsetCommit{topic: {{Partition: 0, Offset: int64(7 + round), Metadata: "here"}}},
		}))
		none(committed.Topics[topic][0].Error)
		none(must(client.EndTxn(ctx, &kafka.EndTxnRequest{
			TransactionalID: id, ProducerID: session.ProducerID, ProducerEpoch: session.ProducerEpoch, Committed: commit,
		})).Error)
		old = session
	}
	begin()
	late := must(client.EndTxn(ctx, &kafka.EndTxnRequest{TransactionalID: id, ProducerID: old.ProducerID, ProducerEpoch: old.ProducerEpoch, Committed: true}))
	check(errors.Is(late.Error, kafka.InvalidProducerEpoch) || errors.Is(late.Error, kafka.Error(90)), "%v", late.Error)
	told := must(client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: id, Topics: map[string][]int{topic: {0}}})).Topics[topic][0]
	check(told.CommittedOffset == 7 && told.Metadata == "here", "%+v", told)
	say("transactions: offsets kept and dropped, fencing")
}

func administration() {
	topic := create("admin", 2, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "3600000"})
	alter := func(operation kafka.ConfigOperation, value string) {
		answer := must(client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "cleanup.policy", Value: value, ConfigOperation: operation}},
		}}}))
		none(answer.Resources[0].Error)
	}
	alter(kafka.ConfigOperationSet, "compact")
	alter(kafka.ConfigOperationAppend, "delete")
	told := must(client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}, IncludeSynonyms: true, IncludeDocumentation: true,
	})).Resources[0]
	none(told.Error)
	settings := map[string]string{}
	for _, entry := range told.ConfigEntries {
		settings[entry.ConfigName] = entry.ConfigValue
	}
	check(settings["retention.ms"] == "3600000" && settings["cleanup.policy"] == "compact,delete", "%v", settings)
	meta := must(client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic, run + "-none"}}))
	check(len(meta.Topics[0].Partitions) == 2 && meta.ClusterID != "" && meta.Controller.ID == meta.Brokers[0].ID, "%+v", meta)
	again := must(client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}}))
	check(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "%v", again.Errors)
	none(must(client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})).Errors[topic])
	gone := must(client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}}))
	check(errors.Is(gone.Errors[topic], kafka.UnknownTopicOrPartition), "%v", gone.Errors)

	// Written to before it exists.
	w := writer(run + "-made")
	w.AllowAutoTopicCreation = true
	until("a topic made by writing", func() bool { return w.WriteMessages(ctx, kafka.Message{Value: []byte("first")}) == nil })
	none(w.Close())
	r := reader(func(c *kafka.ReaderConfig) {
		c.Topic, c.GroupID, c.IsolationLevel = run+"-made", run+"-made", kafka.ReadCommitted
	})
	check(string(must(r.ReadMessage(ctx)).Value) == "first", "made")
	none(r.Close())
	say("administration, a topic made by writing")
}

func main() {
	bootstrap = os.Args[1]
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 300*time.Second)
	defer cancel()
	client = &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 20 * time.Second, Transport: &kafka.Transport{MetadataTTL: 200 * time.Millisecond}}
	for _, step := range []func(){codecs, groups, transactions, administration} {
		step()
	}
	say("ok")
}
