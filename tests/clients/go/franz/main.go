// franz-go against a server: franz BOOTSTRAP. Exits non-zero on any failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	bootstrap string
	run       = "franz-" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	ctx       context.Context
	admin     *kadm.Client
)

func check(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func must[T any](value T, err error) T {
	check(err == nil, "%v", err)
	return value
}

func none(err error) { check(err == nil, "%v", err) }

func client(opts ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.WithContext(ctx), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}, opts...)...))
}

func create(name string, partitions int32, configs ...string) string {
	set := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		set[configs[i]] = &configs[i+1]
	}
	created := must(admin.CreateTopic(ctx, partitions, 1, set, run+"-"+name))
	none(created.Err)
	return created.Topic
}

// read returns so many records of a topic, by partition and in its order.
func read(topic string, count int, opts ...kgo.Opt) []*kgo.Record {
	cl := client(append([]kgo.Opt{kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, opts...)...)
	defer cl.Close()
	var out []*kgo.Record
	wait, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for len(out) < count {
		fetches := cl.PollFetches(wait)
		check(wait.Err() == nil, "%d of %d records of %s", len(out), count, topic)
		for _, e := range fetches.Errors() {
			check(false, "%s %d: %v", e.Topic, e.Partition, e.Err)
		}
		out = append(out, fetches.Records()...)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Partition < out[j].Partition })
	return out
}

func codecs() {
	topic := create("codecs", 1)
	names := []string{"none", "gzip", "snappy", "lz4", "zstd"}
	for i, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		cl := client(kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(topic))
		for n := range 200 {
			r := &kgo.Record{Key: fmt.Appendf(nil, "%s%d", names[i], n), Value: []byte(fmt.Sprintf("%0100d", n))}
			r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")}, {Key: "n"}}
			if n%10 == 0 {
				r.Value = nil
			}
			cl.Produce(ctx, r, func(_ *kgo.Record, err error) { none(err) })
		}
		none(cl.Flush(ctx))
		cl.Close()
	}
	got := read(topic, 1000)
	for i, r := range got {
		check(string(r.Key) == fmt.Sprintf("%s%d", names[i/200], i%200) && r.Offset == int64(i), "record %d: %s", i, r.Key)
		check((r.Value == nil) == (i%10 == 0) && len(r.Headers) == 3 && string(r.Headers[1].Value) == "2", "record %d", i)
	}
	say("codecs, headers, NULLs, idempotence")
}

func acks() {
	topic := create("acks", 1)
	for i, acks := range []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()} {
		cl := client(kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite(), kgo.DefaultProduceTopic(topic))
		for n := range 50 {
			none(cl.ProduceSync(ctx, kgo.StringRecord(strconv.Itoa(50*i+n))).FirstErr())
		}
		cl.Close()
		read(topic, 50*(i+1))
	}
	got := read(topic, 150)
	for i, r := range got {
		check(string(r.Value) == strconv.Itoa(i), "record %d: %s", i, r.Value)
	}
	// Larger than the topic takes.
	small := create("small", 1, "max.message.bytes", "1000")
	cl := client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer cl.Close()
	err := cl.ProduceSync(ctx, &kgo.Record{Topic: small, Value: make([]byte, 5000)}).FirstErr()
	check(errors.Is(err, kerr.MessageTooLarge), "%v", err)
	err = cl.ProduceSync(ctx, &kgo.Record{Topic: run + "-nowhere", Value: []byte("v")}).FirstErr()
	check(errors.Is(err, kerr.UnknownTopicOrPartition), "%v", err)
	say("acks, refusals")
}

// partitions holds the default partitioner, murmur2, against what the Java client does.
func partitions() {
	topic := create("murmur2", 4)
	cl := client(kgo.DefaultProduceTopic(topic))
	defer cl.Close()
	// Where Java's client puts them: its murmur2 of these is -973932308, -790332482, -985981536 and 479470107.
	want := map[string]int32{"21": 0, "foobar": 2, "a-little-bit-long-string": 0, "abc": 3}
	for key := range want {
		r := must(cl.ProduceSync(ctx, kgo.KeyStringRecord(key, "v")).First())
		check(r.Partition == want[key], "%s went to %d", key, r.Partition)
	}
	say("default partitioner")
}

// copyOnce copies a topic in transactions that take the group's offsets with them, in two sessions of which one is
// thrown away three times, with aborts among them. The topic grows until all that has happened.
func copyOnce() {
	source, sink := create("source", 4), create("sink", 2)
	var done, cut, aborted, committed, count int
	full := false
	var lock sync.Mutex
	var group sync.WaitGroup
	writer := client(kgo.DefaultProduceTopic(source))
	write := func(more int) {
		for n := range more {
			value := strconv.Itoa(count + n)
			writer.Produce(ctx, kgo.KeyStringRecord(value, value), func(_ *kgo.Record, err error) { none(err) })
		}
		none(writer.Flush(ctx))
		lock.Lock()
		count += more
		full = count >= 3000 && cut == 3 && aborted > 0
		lock.Unlock()
	}
	write(2900)
	copier := func(id int, lives int) {
		defer group.Done()
		for life := 0; ; life++ {
			session := must(kgo.NewGroupTransactSession(
				kgo.SeedBrokers(bootstrap), kgo.WithContext(ctx), kgo.ConsumerGroup(run+"-copy"), kgo.ConsumeTopics(source),
				kgo.TransactionalID(fmt.Sprintf("%s-copy-%d", run, id)), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets(), kgo.DefaultProduceTopic(sink),
				kgo.FetchMaxWait(500*time.Millisecond), kgo.Balancers(kgo.CooperativeStickyBalancer()),
				kgo.SessionTimeout(45*time.Second), kgo.HeartbeatInterval(200*time.Millisecond), kgo.TransactionTimeout(60*time.Second),
			))
			for rounds := 0; ; rounds++ {
				wait, cancel := context.WithTimeout(ctx, time.Second)
				fetches := session.PollRecords(wait, 70)
				cancel()
				lock.Lock()
				finished := full && done >= count
				lock.Unlock()
				if finished {
					session.Close()
					return
				}
				records := fetches.Records()
				if len(records) == 0 {
					continue
				}
				none(session.Begin())
				for _, r := range records {
					session.Produce(ctx, &kgo.Record{Key: r.Key, Value: r.Value}, nil)
				}
				if life < lives && rounds > 3 {
					// Nobody says what becomes of this one: the next life's id fences it.
					none(session.Client().Flush(ctx))
					session.Client().Close()
					lock.Lock()
					cut++
					lock.Unlock()
					break
				}
				ok := must(session.End(ctx, kgo.TransactionEndTry(rounds%5 != 2)))
				lock.Lock()
				if ok {
					committed++
					done += len(records)
				} else {
					aborted++
				}
				lock.Unlock()
			}
		}
	}
	group.Add(2)
	go copier(1, 3)
	go copier(2, 0)
	for !full {
		time.Sleep(20 * time.Millisecond)
		write(100)
	}
	writer.Close()
	group.Wait()
	got := read(sink, count, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	seen := map[string]int{}
	for _, r := range got {
		seen[string(r.Value)]++
	}
	for n := range count {
		check(seen[strconv.Itoa(n)] == 1, "%d is there %d times", n, seen[strconv.Itoa(n)])
	}
	end := must(admin.ListCommittedOffsets(ctx, sink))
	check(cut == 3 && aborted > 0, "cut %d, aborted %d", cut, aborted)
	none(end.Error())
	transactions := must(admin.ListTransactions(ctx, nil, nil))
	for id := range 2 {
		name := fmt.Sprintf("%s-copy-%d", run, id+1)
		state := transactions[name].State
		check(slices.Contains([]string{"CompleteCommit", "CompleteAbort", "Empty"}, state), "%s is %q", name, state)
		none(must(admin.DescribeTransactions(ctx, name))[name].Err)
	}
	say("exactly once: %d records in %d transactions, %d aborted, %d cut", count, committed, aborted, cut)
}

func fencing() {
	topic := create("fenced", 1)
	begin := func(value string) *kgo.Client {
		cl := client(kgo.TransactionalID(run+"-fenced"), kgo.DefaultProduceTopic(topic), kgo.TransactionTimeout(30*time.Second))
		none(cl.BeginTransaction())
		none(cl.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr())
		return cl
	}
	old := begin("old")
	defer old.Close()
	open := must(admin.ListEndOffsets(ctx, topic))
	stable := must(admin.ListCommittedOffsets(ctx, topic))
	o, _ := open.Lookup(topic, 0)
	s, _ := stable.Lookup(topic, 0)
	check(o.Offset == 1 && s.Offset == 0, "open: end %d, stable %d", o.Offset, s.Offset)
	active := must(admin.DescribeProducers(ctx, kadm.TopicsSet{topic: {0: {}}}))
	check(len(active[topic].Partitions[0].ActiveProducers) == 1, "%v", active)
	next := begin("new")
	defer next.Close()
	err := old.EndTransaction(ctx, kgo.TryCommit)
	check(errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch), "the old one was told %v", err)
	none(next.EndTransaction(ctx, kgo.TryCommit))
	got := read(topic, 1, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	check(len(got) == 1 && string(got[0].Value) == "new", "%v", got)
	long := client(kgo.TransactionalID(run+"-long"), kgo.TransactionTimeout(2*time.Hour))
	defer long.Close()
	err = long.BeginTransaction()
	check(errors.Is(err, kerr.InvalidTransactionTimeout), "%v", err)
	say("fencing, last stable offset")
}

// member consumes as one of a group until it is stopped, and counts what it reads.
type member struct {
	cl   *kgo.Client
	mine map[int32]bool
	lock *sync.Mutex
	stop context.CancelFunc
	over chan struct{}
}

// shared is what a group's members have read, and who owns what.
type shared struct {
	sync.Mutex
	seen   map[string]int
	owners map[int32]int
	twice  bool
}

func (s *shared) join(group, topic string, opts ...kgo.Opt) *member {
	m := &member{mine: map[int32]bool{}, lock: &s.Mutex, over: make(chan struct{})}
	m.cl = client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(45 * time.Second), kgo.HeartbeatInterval(200 * time.Millisecond), kgo.AutoCommitInterval(200 * time.Millisecond),
		kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			s.Lock()
			defer s.Unlock()
			for _, p := range gained[topic] {
				s.owners[p]++
				s.twice = s.twice || s.owners[p] > 1
				m.mine[p] = true
			}
		}),
		kgo.OnPartitionsRevoked(func(c context.Context, cl *kgo.Client, lost map[string][]int32) {
			none(cl.CommitMarkedOffsets(c))
			s.Lock()
			defer s.Unlock()
			for _, p := range lost[topic] {
				s.owners[p]--
				delete(m.mine, p)
			}
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { check(false, "partitions were lost") }),
	}, opts...)...)
	var polling context.Context
	polling, m.stop = context.WithCancel(ctx)
	go func() {
		defer close(m.over)
		for polling.Err() == nil {
			fetches := m.cl.PollFetches(polling)
			s.Lock()
			for _, r := range fetches.Records() {
				s.seen[string(r.Value)]++
			}
			s.Unlock()
			m.cl.MarkCommitRecords(fetches.Records()...)
			m.cl.AllowRebalance()
		}
	}()
	return m
}

func (m *member) leave() {
	m.stop()
	<-m.over
	m.cl.CloseAllowingRebalance()
}

func (m *member) owns() int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return len(m.mine)
}

func until(what string, ready func() bool) {
	for end := time.Now().Add(90 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		check(time.Now().Before(end), "not within 90 s: %s", what)
	}
}

func groups() {
	for _, one := range []struct {
		name     string
		balancer kgo.GroupBalancer
	}{
		{"range", kgo.RangeBalancer()}, {"roundrobin", kgo.RoundRobinBalancer()}, {"sticky", kgo.StickyBalancer()},
		{"cooperative-sticky", kgo.CooperativeStickyBalancer()},
	} {
		topic, group := create("group-"+one.name, 6), run+"-"+one.name
		s := &shared{seen: map[string]int{}, owners: map[int32]int{}}
		balancer := kgo.Balancers(one.balancer)
		first := s.join(group, topic, balancer)
		until("first owns all", func() bool { return first.owns() == 6 })
		writer, wrote := client(kgo.DefaultProduceTopic(topic)), 0
		write := func() {
			for range 300 {
				writer.Produce(ctx, kgo.KeyStringRecord(strconv.Itoa(wrote), strconv.Itoa(wrote)), func(_ *kgo.Record, err error) { none(err) })
				wrote++
			}
			none(writer.Flush(ctx))
		}
		write()
		second := s.join(group, topic, balancer)
		until("three each", func() bool { return first.owns() == 3 && second.owns() == 3 })
		write()
		described := must(admin.DescribeGroups(ctx, group))[group]
		check(described.State == "Stable" && described.Protocol == one.name && len(described.Members) == 2, "%v", described)
		third := s.join(group, topic, balancer)
		until("two each", func() bool { return first.owns() == 2 && second.owns() == 2 && third.owns() == 2 })
		write()
		first.leave()
		until("three each again", func() bool { return second.owns() == 3 && third.owns() == 3 })
		write()
		all := func() bool { s.Lock(); defer s.Unlock(); return len(s.seen) == wrote }
		until("all are read", all)
		second.leave()
		third.leave()
		check(!s.twice, "%s: a partition was owned twice", one.name)
		for value, n := range s.seen {
			check(n == 1, "%s: %s was read %d times", one.name, value, n)
		}
		lag := must(admin.Lag(ctx, group))[group]
		check(lag.Error() == nil && lag.Lag.Total() == 0 && lag.State == "Empty", "%s: lag %d, %s, %v", one.name, lag.Lag.Total(), lag.State, lag.Error())
		writer.Close()
	}
	say("groups: eager and cooperative balancers")
}

func static() {
	topic, group := create("static", 4), run+"-static"
	s := &shared{seen: map[string]int{}, owners: map[int32]int{}}
	id := func(name string) kgo.Opt { return kgo.InstanceID(name) }
	one := s.join(group, topic, id("one"))
	until("the first owns all", func() bool { return one.owns() == 4 })
	two := s.join(group, topic, id("two"))
	each := func() bool { return one.owns() == 2 && two.owns() == 2 }
	until("two each", each)
	generation := func() int32 { _, g := one.cl.GroupMetadata(); return g }
	before := generation()
	two.leave() // which a static member does not tell
	s = &shared{seen: map[string]int{}, owners: map[int32]int{}}
	two = s.join(group, topic, id("two"))
	until("two each again", each)
	time.Sleep(500 * time.Millisecond)
	check(generation() == before, "generation %d became %d", before, generation())
	// A leader that comes back gets what it had, without balancing. This client balances for itself all the same, from
	// nothing owned, and asks for a new generation where it finds something else: so the generation may stay or not.
	one.leave()
	s = &shared{seen: map[string]int{}, owners: map[int32]int{}}
	one = s.join(group, topic, id("one"))
	until("the leader has its two", each)
	one.leave()
	left := must(admin.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs("one")))
	none(left["one"].Err)
	until("the other owns all", func() bool { return two.owns() == 4 })
	two.leave()
	none(must(admin.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs("two")))["two"].Err)
	until("empty", func() bool { return must(admin.DescribeGroups(ctx, group))[group].State == "Empty" })
	none(must(admin.DeleteGroup(ctx, group)).Err)
	say("static members")
}

// nextGen joins by KIP-848's heartbeats where the server offers them.
func nextGen() {
	versions := must(admin.ApiVersions(ctx))
	for _, v := range versions {
		if _, max, ok := v.KeyVersions(68); !ok || max < 1 {
			say("KIP-848: the server does not offer it")
			return
		}
	}
	topic, group := create("next", 6), run+"-next"
	s := &shared{seen: map[string]int{}, owners: map[int32]int{}}
	opt := kgo.WithContext(context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true))
	first, second := s.join(group, topic, opt), s.join(group, topic, opt)
	until("three each", func() bool { return first.owns() == 3 && second.owns() == 3 })
	writer := client(kgo.DefaultProduceTopic(topic))
	for n := range 500 {
		writer.Produce(ctx, kgo.KeyStringRecord(strconv.Itoa(n), strconv.Itoa(n)), func(_ *kgo.Record, err error) { none(err) })
	}
	none(writer.Flush(ctx))
	writer.Close()
	second.leave()
	until("first owns all", func() bool { return first.owns() == 6 })
	until("all are read", func() bool { s.Lock(); defer s.Unlock(); return len(s.seen) == 500 })
	described := must(admin.DescribeConsumerGroups(ctx, group))[group]
	check(described.Err == nil && len(described.Members) == 1, "%v", described)
	first.leave()
	check(!s.twice, "a partition was owned twice")
	say("KIP-848 groups")
}

func offsets() {
	topic := create("times", 1)
	base := time.Now().Add(-time.Hour).UnixMilli()
	cl := client(kgo.DefaultProduceTopic(topic))
	defer cl.Close()
	for n := range 100 { // in one batch
		r := kgo.StringRecord(strconv.Itoa(n))
		r.Timestamp = time.UnixMilli(base + int64(n)*1000)
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) { none(err) })
	}
	none(cl.Flush(ctx))
	at := func(o kadm.ListedOffsets, err error) int64 {
		none(err)
		none(o.Error())
		l, _ := o.Lookup(topic, 0)
		return l.Offset
	}
	check(at(admin.ListStartOffsets(ctx, topic)) == 0 && at(admin.ListEndOffsets(ctx, topic)) == 100, "start, end")
	check(at(admin.ListOffsetsAfterMilli(ctx, base+41_500, topic)) == 42, "after a time")
	check(at(admin.ListOffsetsAfterMilli(ctx, base+200_000, topic)) == 100, "after the end")
	check(at(admin.ListMaxTimestampOffsets(ctx, topic)) == 99, "greatest timestamp")
	check(at(admin.ListLocalLogStartOffsets(ctx, topic)) == 0, "local start")
	got := read(topic, 58, kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(base+41_500)))
	check(got[0].Offset == 42, "from a time: %d", got[0].Offset)

	var from kadm.Offsets = kadm.Offsets{}
	from.Add(kadm.Offset{Topic: topic, Partition: 0, At: 60, LeaderEpoch: -1})
	deleted := must(admin.DeleteRecords(ctx, from))
	none(deleted.Error())
	d, _ := deleted.Lookup(topic, 0)
	check(d.LowWatermark == 60 && at(admin.ListStartOffsets(ctx, topic)) == 60, "deleted up to %d", d.LowWatermark)
	check(read(topic, 40)[0].Offset == 60, "first record")
	// A consumer whose offset is gone goes where it is told to.
	lost := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(7)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer lost.Close()
	first := lost.PollFetches(ctx).Records()
	check(len(first) > 0 && first[0].Offset == 60, "out of range")
	meta := must(admin.Metadata(ctx, topic))
	epoch := must(admin.OffsetForLeaderEpoch(ctx, func() kadm.OffsetForLeaderEpochRequest {
		var r kadm.OffsetForLeaderEpochRequest
		r.Add(topic, 0, meta.Topics[topic].Partitions[0].LeaderEpoch)
		return r
	}()))
	check(epoch[topic][0].EndOffset == 100, "%v", epoch)
	say("offsets by time, deleted records, leader epochs")
}

func administration() {
	topic, group := create("admin", 2, "retention.ms", "123456"), run+"-admin"
	config := func(key string) *kadm.Config {
		described := must(must(admin.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
		none(described.Err)
		for i := range described.Configs {
			if described.Configs[i].Key == key {
				return &described.Configs[i]
			}
		}
		check(false, "no %s", key)
		return nil
	}
	retention := config("retention.ms")
	check(retention.MaybeValue() == "123456" && retention.Source == kmsg.ConfigSourceDynamicTopicConfig, "%v", retention)
	check(config("cleanup.policy").Source == kmsg.ConfigSourceDefaultConfig, "%v", config("cleanup.policy"))
	value := "2000000"
	for _, r := range must(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &value}, {Op: kadm.DeleteConfig, Name: "retention.ms"},
	}, topic)) {
		none(r.Err)
	}
	check(config("max.message.bytes").MaybeValue() == value && config("retention.ms").Source == kmsg.ConfigSourceDefaultConfig, "altered")
	wrong := "-7"
	refused := must(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &wrong}}, topic))
	check(errors.Is(refused[0].Err, kerr.InvalidConfig), "%v", refused[0].Err)
	for _, b := range must(admin.DescribeBrokerConfigs(ctx, 1)) {
		check(b.Err == nil && len(b.Configs) > 5, "%v", b.Err)
	}
	none(must(admin.UpdatePartitions(ctx, 5, topic))[topic].Err)
	until("five partitions", func() bool { return len(must(admin.ListTopics(ctx, topic))[topic].Partitions) == 5 })
	check(errors.Is(must(admin.UpdatePartitions(ctx, 3, topic))[topic].Err, kerr.InvalidPartitions), "fewer partitions")
	_, err := admin.CreateTopic(ctx, 1, 1, nil, topic)
	check(errors.Is(err, kerr.TopicAlreadyExists), "%v", err)
	_, err = admin.CreateTopic(ctx, 1, 3, nil, run+"-three")
	check(errors.Is(err, kerr.InvalidReplicationFactor), "%v", err)
	_, err = admin.CreateTopic(ctx, 1, 1, map[string]*string{"no.such.thing": &value}, run+"-wrong")
	check(errors.Is(err, kerr.InvalidConfig), "%v", err)
	for _, r := range must(admin.ValidateCreateTopics(ctx, 1, 1, nil, run+"-dry")) {
		none(r.Err)
	}
	check(!must(admin.ListTopics(ctx)).Has(run+"-dry"), "a dry run created")

	cl := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	none(cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
	cl.Close()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 0, LeaderEpoch: -1, Metadata: "mine"})
	offsets.Add(kadm.Offset{Topic: topic, Partition: 1, At: 0, LeaderEpoch: -1})
	none(admin.CommitAllOffsets(ctx, group, offsets))
	fetched := must(admin.FetchOffsets(ctx, group))
	kept, _ := fetched.Lookup(topic, 0)
	check(kept.At == 0 && kept.Metadata == "mine", "%v", kept)
	gone := kadm.TopicsSet{}
	gone.Add(topic, 1)
	for _, partitions := range must(admin.DeleteOffsets(ctx, group, gone)) {
		for _, err := range partitions {
			none(err)
		}
	}
	fetched = must(admin.FetchOffsets(ctx, group))
	_, there := fetched.Lookup(topic, 1)
	check(!there, "a deleted offset is there")
	check(slices.Contains(must(admin.ListGroups(ctx)).Groups(), group), "the group is not listed")
	none(must(admin.DeleteGroup(ctx, group)).Err)
	check(errors.Is(must(admin.DeleteGroups(ctx, group))[group].Err, kerr.GroupIDNotFound), "deleted twice")

	_, err = admin.DescribeACLs(ctx, kadm.NewACLs().AnyResource().AllowHosts().Allow().Deny().DenyHosts().ResourcePatternType(kadm.ACLPatternAny).Operations(kadm.OpAny))
	var acls kadm.DescribeACLsResults
	if err == nil {
		acls, err = admin.DescribeACLs(ctx, kadm.NewACLs().AnyResource().Allow().AllowHosts().Deny().DenyHosts().ResourcePatternType(kadm.ACLPatternAny).Operations(kadm.OpAny))
		for _, a := range acls {
			if a.Err != nil {
				err = a.Err
			}
		}
	}
	check(err == nil || errors.Is(err, kerr.SecurityDisabled), "%v", err)

	set := kadm.TopicsSet{}
	set.Add(topic, 0)
	dirs := must(admin.DescribeBrokerLogDirs(ctx, 1, set))
	none(dirs.Error())
	check(dirs.Size() > 0, "size %d", dirs.Size())
	elected := must(admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, set))
	check(errors.Is(elected[topic][0].Err, kerr.ElectionNotNeeded), "%v", elected[topic][0].Err)
	check(len(must(admin.ListPartitionReassignments(ctx, set))) == 0, "reassignments")
	check(len(must(admin.ListBrokers(ctx))) == 1, "brokers")
	coordinator := admin.FindGroupCoordinators(ctx, group, group+"2")
	check(coordinator.AllFailed() == false && len(coordinator) == 2, "%v", coordinator)

	before := must(admin.ListTopics(ctx, topic))[topic].ID
	none(must(admin.DeleteTopic(ctx, topic)).Err)
	check(errors.Is(must(admin.DeleteTopics(ctx, topic))[topic].Err, kerr.UnknownTopicOrPartition), "deleted twice")
	until("gone", func() bool { return !must(admin.ListTopics(ctx)).Has(topic) })
	check(create("admin", 1) == topic, "created")
	// The client may answer from what it has kept for a moment.
	until("another id for another topic", func() bool { t := must(admin.ListTopics(ctx, topic))[topic]; return t.Err == nil && t.ID != before })
	empty, _ := must(admin.ListEndOffsets(ctx, topic)).Lookup(topic, 0)
	check(empty.Offset == 0, "a new topic has %d records", empty.Offset)
	say("administration")
}

// sessions reads many quiet partitions of which one is written at a time.
func sessions() {
	topic := create("sessions", 40)
	cl := client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	writer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer writer.Close()
	read := func(partition int32, offset int64) {
		wait, cancel := context.WithTimeout(ctx, 60*time.Second)
		defer cancel()
		got := cl.PollFetches(wait).Records()
		check(len(got) == 1 && got[0].Partition == partition && got[0].Offset == offset, "of partition %d: %v", partition, got)
	}
	for round := range int64(3) {
		for p := range int32(40) {
			if p%4 == 0 {
				none(writer.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: p, Value: []byte("v")}).FirstErr())
				read(p, round)
			}
		}
		cl.PauseFetchPartitions(map[string][]int32{topic: {1, 2, 3}})
	}
	none(writer.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: 1, Value: []byte("v")}).FirstErr())
	cl.ResumeFetchPartitions(map[string][]int32{topic: {1, 2, 3}})
	read(1, 0)
	versions := must(admin.ApiVersions(ctx))
	for _, v := range versions {
		_, max, _ := v.KeyVersions(int16(kmsg.Fetch))
		say("fetches of 40 partitions, up to version %d", max)
	}
}

func say(format string, args ...any) { fmt.Printf("franz-go: "+format+"\n", args...) }

func main() {
	bootstrap = os.Args[1]
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(context.Background(), 380*time.Second)
	defer cancel()
	none(func() (err error) { cl := client(); admin = kadm.NewClient(cl); return nil }())
	defer admin.Close()
	codecs()
	acks()
	partitions()
	offsets()
	administration()
	sessions()
	fencing()
	groups()
	static()
	nextGen()
	copyOnce()
	say("ok")
}
