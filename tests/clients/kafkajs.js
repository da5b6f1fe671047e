// kafkajs against a server: node kafkajs.js BOOTSTRAP. Exits non-zero on any failure.
'use strict';
const path = require('path');
const assert = require('assert');
const cache = process.env.MILLPOND_CACHE || path.join(process.env.HOME, '.cache/millpond');
const load = (name) => require(path.join(cache, 'node/node_modules', name));
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = load('kafkajs');
CompressionCodecs[CompressionTypes.Snappy] = load('kafkajs-snappy');

const say = (text) => console.log('kafkajs:', text);
setTimeout(() => { console.error('kafkajs: FAILED: out of time'); process.exit(1); }, 360000).unref();
const kafka = new Kafka({ clientId: 'check', brokers: [process.argv[2]], logLevel: logLevel.ERROR, connectionTimeout: 20000 });
const run = 'kafkajs-' + Math.random().toString(16).slice(2, 10);
const admin = kafka.admin();
// What is refused on purpose is not for the log.
const quiet = new Kafka({ clientId: 'check', brokers: [process.argv[2]], logLevel: logLevel.NOTHING, retry: { retries: 0 } }).admin();

async function until(condition, what, seconds = 90) {
  for (const end = Date.now() + seconds * 1000; !(await condition());) {
    assert(Date.now() < end, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function administration(producer) {
  const topic = `${run}-admin`;
  await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] });
  await assert.rejects(admin.createPartitions({ topicPartitions: [{ topic, count: 1 }] }));
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.deepStrictEqual(metadata.topics[0].partitions.map((p) => [p.partitionId, p.leader]).sort(), [[0, 1], [1, 1], [2, 1], [3, 1]]);
  // Its only way, which sets all that there is.
  for (const [name, value] of [['retention.ms', '5555'], ['segment.ms', '66666']]) {
    await admin.alterConfigs({ resources: [{ type: 2, name: topic, configEntries: [{ name, value }] }] });
  }
  const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name: topic }], includeSynonyms: true });
  const set = resources[0].configEntries.filter((c) => !c.isDefault).map((c) => [c.configName, c.configValue]);
  assert.deepStrictEqual(set, [['segment.ms', '66666']]);
  const broker = (await admin.describeConfigs({ resources: [{ type: 4, name: '1' }] })).resources[0];
  assert(broker.configEntries.find((c) => c.configName === 'advertised.listeners').readOnly);

  const begin = 1700000000000;
  const messages = Array.from({ length: 10 }, (_, i) => ({ value: `${i}`, partition: 0, timestamp: `${begin + i * 1000}` }));
  await producer.send({ topic, messages });
  const offsets = async () => (await admin.fetchTopicOffsets(topic)).find((p) => p.partition === 0);
  // Which is also how its administrator learns who leads a partition.
  assert.strictEqual((await offsets()).high, '10');
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] });
  const first = await offsets();
  assert.deepStrictEqual([first.low, first.high], ['2', '10']);
  const at = await admin.fetchTopicOffsetsByTimestamp(topic, begin + 5000);
  assert.strictEqual(at.find((p) => p.partition === 0).offset, '5');
  // All of a partition, by kafkajs's own sign for it.
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '-1' }] });
  assert.strictEqual((await offsets()).low, '10');

  await admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: '10' }] });
  assert((await admin.listGroups()).groups.some((g) => g.groupId === topic));
  await admin.deleteGroups([topic]);
  assert(!(await admin.listGroups()).groups.some((g) => g.groupId === topic));
  const cluster = await admin.describeCluster();
  assert.deepStrictEqual([cluster.brokers.length, cluster.controller], [1, 1]);
  await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas: [1] }] }] });
  assert.deepStrictEqual(await admin.listPartitionReassignments({ topics: [{ topic, partitions: [0] }] }), { topics: [] });
  // Without an authorizer there are none.
  const acl = { resourceType: 2, resourceName: topic, resourcePatternType: 3, principal: 'User:alice', host: '*', operation: 3, permissionType: 3 };
  await assert.rejects(quiet.createAcls({ acl: [acl] }), { type: 'SECURITY_DISABLED' });
  await assert.rejects(quiet.describeAcls(acl), { type: 'SECURITY_DISABLED' });
  await assert.rejects(quiet.deleteAcls({ filters: [acl] }), { type: 'SECURITY_DISABLED' });
  await quiet.disconnect();
  await admin.deleteTopics({ topics: [topic] });
  say('partitions, settings, deleted records, groups, reassignments');
}

async function main() {
  await admin.connect();
  await quiet.connect();
  const topic = `${run}-topic`;
  assert(await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] }));
  const producer = kafka.producer();
  await producer.connect();
  const sent = [];
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy]) {
    const messages = Array.from({ length: 200 }, (_, i) => ({
      key: `${compression}-${i}`, value: `value ${i} `.repeat(20), partition: i % 2, headers: { h: ['1', '2'] },
    }));
    await producer.send({ topic, compression, messages });
    sent.push(...messages);
  }
  const idempotent = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await idempotent.connect();
  const more = Array.from({ length: 100 }, (_, i) => ({ key: `idempotent-${i}`, value: 'v', partition: i % 2 }));
  await idempotent.send({ topic, acks: -1, messages: more });
  await idempotent.disconnect();
  sent.push(...more);
  say('produced: none, gzip, snappy, idempotent');

  const transactional = kafka.producer({ transactionalId: run, idempotent: true, maxInFlightRequests: 1 });
  await transactional.connect();
  const inTransactions = `${run}-txn`;
  await admin.createTopics({ topics: [{ topic: inTransactions, numPartitions: 1 }] });
  for (const name of ['dropped', 'kept']) {
    const transaction = await transactional.transaction();
    await transaction.send({ topic: inTransactions, messages: [1, 2, 3].map((i) => ({ value: `${name}${i}` })) });
    const topics = [{ topic: inTransactions, partitions: [{ partition: 0, offset: name === 'kept' ? '7' : '5' }] }];
    await transaction.sendOffsets({ consumerGroupId: `${run}-txn-group`, topics });
    await (name === 'kept' ? transaction.commit() : transaction.abort());
  }
  await transactional.disconnect();
  const committed = kafka.consumer({ groupId: `${run}-committed` });
  const read = [];
  await committed.connect();
  await committed.subscribe({ topic: inTransactions, fromBeginning: true });
  await committed.run({ eachMessage: async ({ message }) => { read.push(message.value.toString()); } });
  await until(() => read.length >= 3, 'what was committed is read');
  await committed.disconnect();
  assert.deepStrictEqual(read, ['kept1', 'kept2', 'kept3']);
  const inOffsets = await admin.fetchOffsets({ groupId: `${run}-txn-group`, topics: [inTransactions] });
  assert.strictEqual(inOffsets[0].partitions[0].offset, '7');
  say('transactions');

  const groupId = `${run}-group`;
  const got = new Map();
  const consumers = [0, 1].map(() => kafka.consumer({ groupId, sessionTimeout: 45000, heartbeatInterval: 500, rebalanceTimeout: 60000 }));
  const joined = [[], []];
  for (const [i, consumer] of consumers.entries()) {
    consumer.on(consumer.events.GROUP_JOIN, (e) => { joined[i] = e.payload.memberAssignment[topic] || []; });
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({ eachMessage: async ({ message }) => { got.set(message.key.toString(), message); } });
  }
  await until(() => got.size === sent.length, 'all is read');
  for (const m of sent) assert.strictEqual(got.get(m.key).value.toString(), m.value);
  await until(() => joined[0].length === 1 && joined[1].length === 1, 'two members share');
  const described = await admin.describeGroups([groupId]);
  assert.strictEqual(described.groups[0].state, 'Stable');
  assert.strictEqual(described.groups[0].members.length, 2);
  // Each partition has been read to its end by who has it now, who may have begun anew after the other one joined.
  const committedInAll = async () => {
    const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
    return offsets[0].partitions.reduce((sum, p) => sum + Number(p.offset), 0);
  };
  await until(async () => (await committedInAll()) === sent.length, 'all is committed');
  await Promise.all(consumers.map((c) => c.disconnect()));
  say('group with two members');

  assert.strictEqual(await committedInAll(), sent.length);
  await admin.resetOffsets({ groupId, topic, earliest: true });
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] });
  const reset = await admin.fetchOffsets({ groupId, topics: [topic] });
  assert.strictEqual(reset[0].partitions.find((p) => p.partition === 0).offset, '3');
  const configs = await admin.describeConfigs({ resources: [{ type: 2, name: topic }], includeSynonyms: false });
  assert(configs.resources[0].configEntries.some((c) => c.configName === 'retention.ms'));
  await admin.deleteGroups([groupId]);
  await admin.deleteTopics({ topics: [topic] });
  assert(!(await admin.listTopics()).includes(topic));
  say('offsets, configs, deletes');
  await administration(producer);
  await producer.disconnect();
  await admin.disconnect();
  say('ok');
  process.exit(0);
}
main().catch((error) => { console.error('kafkajs: FAILED:', error); process.exit(1); });
