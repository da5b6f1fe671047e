// kafkajs by each way in: node security.js LOGIN MUTUAL DIRECTORY, or without TLS: node security.js LOGIN; with users and secrets as JSON on standard input.
'use strict';
const fs = require('fs');
const path = require('path');
const assert = require('assert');
const cache = process.env.MILLPOND_CACHE || path.join(process.env.HOME, '.cache/millpond');
const { Kafka, logLevel } = require(path.join(cache, 'node/node_modules', 'kafkajs'));

const [login, mutual, directory] = process.argv.slice(2);
const { user, password, wrong, token } = JSON.parse(fs.readFileSync(0, 'utf8'));
const file = (name) => fs.readFileSync(path.join(directory, name), 'utf8');
const say = (text) => console.log('security: kafkajs', text);
setTimeout(() => { console.error('security: FAILED: kafkajs is out of time'); process.exit(1); }, 160000).unref();

const over = (broker, ssl, sasl) => new Kafka({
  clientId: 'security', brokers: [broker], ssl, sasl, logLevel: logLevel.NOTHING, connectionTimeout: 20000, retry: { retries: 1 },
});
const ca = () => ({ ca: [file('ca.pem')] });
const named = (mechanism, secret = password) => over(login, ca(), { mechanism, username: user, password: secret });

async function works(name, kafka) {
  const topic = `kafkajs-${name}`;
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic, messages: [{ value: 'one' }, { value: 'two' }] });
  await producer.disconnect();
  const offsets = await admin.fetchTopicOffsets(topic);
  assert.strictEqual(offsets[0].high, '2');
  await admin.disconnect();
  say(`by ${name}`);
}

async function main() {
  if (!mutual) {
    for (const mechanism of ['plain', 'scram-sha-256']) {
      await works(`without-tls-${mechanism}`, over(login, false, { mechanism, username: user, password }));
    }
    return;
  }
  const certificate = { ...ca(), cert: file('client.pem'), key: file('client.key') };
  for (const mechanism of ['plain', 'scram-sha-256', 'scram-sha-512']) await works(mechanism, named(mechanism));
  const oauthBearerProvider = async () => ({ value: token });
  await works('oauthbearer', over(login, ca(), { mechanism: 'oauthbearer', oauthBearerProvider }));
  await works('mutual-tls', over(mutual, certificate));
  for (const mechanism of ['plain', 'scram-sha-512']) {
    await assert.rejects(named(mechanism, wrong).admin().connect(), mechanism);
  }
  await assert.rejects(over(mutual, ca()).admin().connect());
  say('is kept out without credentials');
}

main().catch((error) => { console.error(error); process.exit(1); });
