// @platformatic/kafka, whose wire code is its own, against a server: node platformatic.mjs BOOTSTRAP. Exits non-zero on
// any failure. Its node is newer than Debian's.
import assert from 'node:assert/strict';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const cache = process.env.MILLPOND_CACHE ?? path.join(process.env.HOME, '.cache/millpond');
const home = path.join(cache, 'node/node_modules/@platformatic/kafka/dist/index.js');
const { Admin, Producer, Consumer, stringSerializers, stringDeserializers } = await import(pathToFileURL(home));

const say = (text) => console.log('platformatic:', text);
setTimeout(() => { console.error('platformatic: FAILED: out of time'); process.exit(1); }, 300_000).unref();
const run = 'platformatic-' + Math.random().toString(16).slice(2, 10);
const base = { clientId: 'check', bootstrapBrokers: [process.argv[2]], strict: true, retries: 10, retryDelay: 200 };
const serializers = stringSerializers, deserializers = stringDeserializers;
const admin = new Admin(base);
const sum = (offsets) => offsets.reduce((a, b) => a + Number(b), 0);

async function until(condition, what, seconds = 90) {
  for (const end = Date.now() + seconds * 1000; !(await condition());) {
    assert(Date.now() < end, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The next messages of a consumer; leaves its stream. */
async function take(consumer, options, count) {
  const stream = await consumer.consume({ mode: 'earliest', maxWaitTime: 200, ...options });
  const got = [];
  for await (const message of stream) {
    got.push(message);
    if (got.length === count) break;
  }
  return got;
}

/** The API's name for what was answered, however deep it lies. */
function code(error) {
  return error.apiId ?? error.errors?.map(code).find(Boolean);
}

const topic = `${run}-topic`, out = `${run}-out`;
const made = await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1, configs: [{ name: 'retention.ms', value: '-1' }] });
assert.equal(made[0].partitions, 3);
await admin.createTopics({ topics: [{ topic: out, partitions: -1, replicas: -1, assignments: [{ partition: 0, brokers: [1] }] }] });
await assert.rejects(admin.createTopics({ topics: [topic] }), (error) => code(error) === 'TOPIC_ALREADY_EXISTS');

let sent = 0;
const idempotent = new Producer({ ...base, serializers, idempotent: true });
for (let round = 0; round < 5; round++) {
  // Several under way at a time, in order in each partition.
  await Promise.all([0, 1, 2].map((partition) => idempotent.send({
    messages: Array.from({ length: 10 }, (_, i) => ({ topic, partition, key: 'idempotent', value: `${round} ${i}`, timestamp: BigInt(1_700_000_000_000 + round) })),
  })));
  sent += 30;
}
await idempotent.close();
for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
  for (const acks of [0, 1, -1]) {
    const producer = new Producer({ ...base, serializers, compression, acks });
    const messages = Array.from({ length: 30 }, (_, i) => ({ topic, key: `key ${i}`, value: `${compression} ${acks} ${i}`, headers: { a: '1', b: '' } }));
    await producer.send({ messages });
    await producer.close();
    sent += messages.length;
  }
}
const reader = new Consumer({ ...base, groupId: `${run}-reader`, deserializers });
await until(async () => sum((await reader.listOffsets({ topics: [topic] })).get(topic)) === sent, 'all that was sent with acks=0');
const all = await take(reader, { topics: [topic], autocommit: false }, sent);
for (const partition of [0, 1, 2]) {
  const own = all.filter((message) => message.partition === partition);
  assert.deepEqual(own.map((message) => Number(message.offset)), own.map((_, i) => i));
  const rounds = own.filter((message) => message.key === 'idempotent').map((message) => message.value);
  assert.deepEqual(rounds, Array.from({ length: 50 }, (_, i) => `${Math.floor(i / 10)} ${i % 10}`));
}
assert.equal(new Set(all.map((message) => message.value)).size, sent - 100);
assert.equal(all.find((message) => message.value === 'zstd 1 7').headers.get('a'), '1');
await reader.close(true);
say('codecs, acks, idempotence, offsets');

for (const groupProtocol of ['classic', 'consumer']) {
  const groupId = `${run}-${groupProtocol}`, members = [], seen = new Set();
  const timing = groupProtocol === 'classic' ? { sessionTimeout: 10_000, rebalanceTimeout: 10_000, heartbeatInterval: 200 } : {};
  for (let i = 0; i < 3; i++) {
    const member = new Consumer({ ...base, clientId: `member-${i}`, groupId, groupProtocol, deserializers, ...timing });
    const stream = await member.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', maxWaitTime: 200, autocommit: 200 });
    stream.on('data', (message) => seen.add(`${message.partition}:${message.offset}`));
    members.push(member);
  }
  const each = () => members.map((member) => (member.assignments ?? []).reduce((n, assigned) => n + assigned.partitions.length, 0));
  await until(() => each().join() === '1,1,1' && seen.size === sent, `${groupProtocol}: three members read all`);
  const committed = async () => {
    const [group] = await admin.listConsumerGroupOffsets({ groups: [groupId] });
    return sum((group.topics[0]?.partitions ?? []).map((partition) => partition.committedOffset));
  };
  await until(async () => (await committed()) === sent, `${groupProtocol}: all is committed`);
  await members.shift().close(true);
  await until(() => each().sort().join() === '1,2', `${groupProtocol}: the others take over`);
  const listed = (await admin.listGroups({ types: ['classic', 'consumer'] })).get(groupId);
  assert.equal(listed.state, 'Stable');
  assert.equal(listed.groupType, groupProtocol);
  for (const member of members) await member.close(true);
  await until(async () => (await admin.listGroups({ types: ['classic', 'consumer'] })).get(groupId).state === 'Empty', `${groupProtocol}: the group is empty`);
  await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [0, 1, 2].map((partition) => ({ partition, offset: 5n })) }] });
  assert.equal(await committed(), 15);
  await admin.deleteGroups({ groups: [groupId] });
  say(`the ${groupProtocol} protocol: members, rebalances, commits`);
}

const copier = new Consumer({ ...base, groupId: `${run}-copier`, deserializers, sessionTimeout: 10_000, heartbeatInterval: 300 });
const some = await take(copier, { topics: [topic], autocommit: false }, 20);
const inFirst = some.filter((message) => message.partition === some[0].partition);
const producer = new Producer({ ...base, serializers, transactionalId: `${run}-copier`, idempotent: true });
for (const how of ['commit', 'abort', 'commit']) {
  const transaction = await producer.beginTransaction();
  await transaction.send({ messages: [0, 1, 2].map((i) => ({ topic: out, partition: 0, value: `${how} ${i}` })) });
  await transaction.addConsumer(copier);
  await transaction.addOffset(how === 'abort' ? inFirst.at(-1) : inFirst[0]);
  await transaction[how]();
}
const [group] = await admin.listConsumerGroupOffsets({ groups: [`${run}-copier`], requireStable: true });
assert.equal(group.topics[0].partitions[0].committedOffset, inFirst[0].offset + 1n);
await copier.close(true);
await producer.close();
for (const [isolationLevel, expected] of [[0, 9], [1, 6]]) {
  const consumer = new Consumer({ ...base, groupId: `${run}-isolation-${isolationLevel}`, deserializers });
  const values = (await take(consumer, { topics: [out], isolationLevel }, expected)).map((message) => message.value);
  assert.equal(values.filter((value) => value.startsWith('abort')).length, isolationLevel ? 0 : 3, values.join());
  await consumer.close(true);
}
say('transactions with offsets, isolation levels');

await admin.createPartitions({ topics: [{ name: topic, count: 5, assignments: [{ brokerIds: [1] }, { brokerIds: [1] }] }] });
const TOPIC = 2, SET = 0;
await admin.incrementalAlterConfigs({ resources: [{ resourceType: TOPIC, resourceName: topic, configs: [{ name: 'cleanup.policy', configOperation: SET, value: 'delete,compact' }] }] });
const [described] = await admin.describeConfigs({ resources: [{ resourceType: TOPIC, resourceName: topic, configurationKeys: ['cleanup.policy'] }], includeSynonyms: true });
assert.equal(described.configs[0].value, 'delete,compact');
const [deleted] = await admin.deleteRecords({ topics: [{ name: out, partitions: [{ partition: 0, offset: 4n }] }] });
assert.equal(deleted.partitions[0].lowWatermark, 4n);
const [listed] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 1, timestamp: 1_700_000_000_003n }, { partitionIndex: 4, timestamp: -1n }] }] });
assert.equal(listed.partitions.find((partition) => partition.partitionIndex === 4).offset, 0n);
const third = listed.partitions.find((partition) => partition.partitionIndex === 1);
assert.deepEqual([third.offset, third.timestamp], [30n, 1_700_000_000_003n]);
await admin.deleteTopics({ topics: [topic, out] });
await admin.close();
say('administration');
process.exit(0);
