// npm's ksqldb-client against a server: node ksqldb_client.js HOST PORT. Exits non-zero on any failure.
'use strict';
const assert = require('assert');
const path = require('path');
const cache = process.env.MILLPOND_CACHE || path.join(process.env.HOME, '.cache/millpond');
const KsqldbClient = require(path.join(cache, 'ksqldb-client/node_modules/ksqldb-client'));

const say = (text) => console.log('ksqldb-client:', text);
setTimeout(() => { console.error('ksqldb-client: FAILED: out of time'); process.exit(1); }, 300000).unref();
const run = 'JS' + Math.random().toString(16).slice(2, 10).toUpperCase();
const earliest = { properties: { 'auto.offset.reset': 'earliest' } };

async function until(condition, what) {
  for (const end = Date.now() + 90000; !(await condition());) {
    assert(Date.now() < end, `not within 90 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function main() {
  const client = new KsqldbClient({ host: `http://${process.argv[2]}`, port: process.argv[3] });
  await client.connect();
  const must = (answer) => { assert.strictEqual(answer.error, undefined, JSON.stringify(answer)); return answer; };

  must(await client.executeStatement(
    `CREATE STREAM \${NAME} (ID STRING KEY, WORD STRING, N INT) WITH (KAFKA_TOPIC='\${TOPIC}', VALUE_FORMAT='JSON', PARTITIONS=2);`,
    { sessionVariables: { NAME: run, TOPIC: run.toLowerCase() } },
  ));
  must(await client.executeStatement(
    `CREATE TABLE ${run}_T AS SELECT WORD, COUNT(*) AS C, SUM(N) AS S FROM ${run} GROUP BY WORD EMIT CHANGES;`,
    { streamsProperties: { 'auto.offset.reset': 'earliest' } },
  ));
  assert((await client.listStreams()).some((s) => s.name === run && s.valueFormat === 'JSON'));
  assert((await client.listTables()).some((t) => t.name === `${run}_T`));
  assert((await client.listTopics()).some((t) => t.name === run.toLowerCase() && t.replicaInfo.length === 2));
  const query = (await client.listQueries()).find((q) => q.sinks.includes(`${run}_T`));
  assert.strictEqual(query.state, 'RUNNING');
  const described = await client.describeSource(run);
  assert.deepStrictEqual(described.fields.map((f) => f.name), ['ID', 'WORD', 'N']);
  say('statements with variables, lists, describe');

  // A push query that waits, while rows are inserted; each comes in a chunk of its own.
  const seen = [];
  let id;
  const push = client.streamQuery(`SELECT WORD, N FROM ${run} EMIT CHANGES;`, (data) => {
    id = data.metadata.queryId;
    seen.push(...(data.rows || []));
  }, earliest);
  await until(() => id, 'the push query begins');
  for (const [i, word] of ['tree', 'wind', 'tree'].entries()) {
    const inserted = must(await client.insertInto(run, { ID: `k${i}`, WORD: word, N: i + 1 }));
    assert.strictEqual(inserted.data.rows[0].status, 'ok');
  }
  await until(() => seen.length === 3, 'three rows');
  assert.deepStrictEqual(seen.map((r) => `${r.WORD}${r.N}`).sort(), ['tree1', 'tree3', 'wind2']);
  must(await client.terminatePushQuery(id));
  assert.strictEqual((await push).status, 200);
  // Many rows at once, each for itself.
  const all = [];
  const limited = await client.streamQuery(`SELECT WORD FROM ${run} EMIT CHANGES LIMIT 3;`, (data) => all.push(...(data.rows || [])), earliest);
  assert.strictEqual(limited.error, undefined);
  assert.strictEqual(all.length, 3);
  say('push queries, insertInto, terminatePushQuery');

  let rows;
  await until(async () => {
    const pulled = must(await client.query(
      `SELECT * FROM ${run}_T WHERE WORD IN ('\${ONE}', '\${TWO}');`, { sessionVariables: { ONE: 'tree', TWO: 'wind' } },
    ));
    rows = pulled.data.rows.map((r) => [r.WORD, r.C, r.S]).sort();
    return JSON.stringify(rows) === JSON.stringify([['tree', 2, 4], ['wind', 1, 2]]);
  }, 'the table has all rows').catch((e) => { throw new Error(`${e.message}: ${JSON.stringify(rows)}`); });
  say('pull query');

  const failed = await client.query('SELECT * FROM NOWHERE;');
  assert.strictEqual(failed.status, 400);
  assert.strictEqual(failed.error['@type'], 'statement_error');
  const refused = await client.insertInto(run, { NOPE: 1 });
  assert(refused.error, JSON.stringify(refused));
  must(await client.executeStatement(`TERMINATE ${query.id};`));
  must(await client.executeStatement(`DROP TABLE ${run}_T DELETE TOPIC;`));
  must(await client.executeStatement(`DROP STREAM ${run} DELETE TOPIC;`));
  await client.disconnect();
  say('ok');
}

main().catch((e) => { console.error('ksqldb-client: FAILED:', e); process.exit(1); });
