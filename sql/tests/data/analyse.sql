-- stateless: projection, filter, generated names, only used columns are read
CREATE STREAM o AS SELECT id, amount * 2, addr->city, ucase(name) AS n FROM orders WHERE amount > 10.5 AND name LIKE 'a%';
-- partition by an expression
CREATE STREAM o AS SELECT abs(qty) AS k, id, qty FROM orders PARTITION BY abs(qty);
-- partition by NULL
CREATE STREAM o AS SELECT id, qty FROM orders PARTITION BY NULL;
-- partition by the key changes nothing
CREATE STREAM o AS SELECT id, qty FROM orders PARTITION BY id;
-- aggregation by the key needs no exchange
CREATE TABLE t AS SELECT id, count(*) AS n, sum(qty) AS s FROM orders GROUP BY id HAVING count(*) > 1;
-- windowed aggregation by several columns
CREATE TABLE t WITH (KEY_FORMAT='JSON') AS SELECT name, qty, windowstart AS ws, latest_by_offset(amount, false) AS a FROM orders WINDOW HOPPING (SIZE 1 HOUR, ADVANCE BY 10 MINUTES, RETENTION 3 HOURS, GRACE PERIOD 5 MINUTES) GROUP BY name, qty EMIT FINAL;
-- aggregation of a table
CREATE TABLE t AS SELECT city, count(*) AS n FROM users GROUP BY city;
-- table functions are zipped below the rest
CREATE STREAM o AS SELECT id, explode(tags) AS tag, explode(ARRAY[1, 2]) + 1 AS n FROM orders;
-- stream-stream join, one side re-keyed
CREATE STREAM o AS SELECT o.id, o.qty, p.paid FROM orders o LEFT JOIN payments p WITHIN (1 MINUTE, 2 MINUTES) GRACE PERIOD 10 SECONDS ON o.id = p.order_id WHERE p.paid > 1;
-- full join has a synthetic key
CREATE STREAM o AS SELECT rowkey AS k, o.qty, p.paid FROM orders o FULL JOIN payments p WITHIN 1 MINUTE ON o.id = p.order_id;
-- stream-table join on a value column
CREATE STREAM o AS SELECT u.id, o.id, o.qty, city FROM orders o JOIN users u ON o.name = u.id;
-- table-table and three-way joins
CREATE TABLE t AS SELECT u.id, u.city, v.score, w.score FROM users u JOIN scores v ON u.id = v.id LEFT JOIN ranks w ON u.id = w.id;
-- foreign-key join
CREATE TABLE t AS SELECT s.id, u.city FROM scores s LEFT JOIN users u ON s.owner = u.id;
-- times as text
CREATE STREAM o AS SELECT id, qty FROM orders WHERE rowtime >= '2020-01-01' AND at BETWEEN '2020-01-01' AND '2020-02-01T10:00';
-- conversions are explicit
CREATE STREAM o AS SELECT id, CASE qty WHEN 1 THEN 1 ELSE amount END AS c, qty IN (1, '2', 3.5) AS i, qty = big AS e, coalesce(qty, 0) AS d FROM orders;
-- lambdas
CREATE STREAM o AS SELECT id, transform(tags, t => ucase(t)) AS u, reduce(tags, 0, (s, t) => s + len(t)) AS n FROM orders;
-- insert into with widening
INSERT INTO sink SELECT id, qty AS v FROM orders;
-- push query: all columns are values, in order
SELECT qty, id, rowtime FROM orders EMIT CHANGES LIMIT 3;
-- push query over all rows
SELECT count(*) AS n FROM orders EMIT CHANGES;
-- pull query
SELECT id, city, rowtime FROM by_city WHERE city = 'x' LIMIT 5;
-- pull query beyond ksqlDB
SELECT u.city, count(*) AS n FROM by_city u JOIN totals t ON u.id = t.id WHERE t.n > 1 GROUP BY u.city HAVING count(*) > 2 ORDER BY n DESC;
-- pull on a stream ends
SELECT * FROM payments WHERE paid > 1;
-- insert values
INSERT INTO orders (rowtime, id, amount, tags) VALUES ('2020-01-01', 1, 2.5, ARRAY['a']);
-- unknown column
CREATE STREAM o AS SELECT id, quantity FROM orders;
-- unknown source
CREATE STREAM o AS SELECT * FROM order;
-- unknown function
CREATE STREAM o AS SELECT id, ucas(name) AS n FROM orders;
-- ambiguous column
CREATE STREAM o AS SELECT id FROM orders JOIN users ON orders.name = users.id;
-- key missing
CREATE STREAM o AS SELECT qty FROM orders;
-- key twice
CREATE STREAM o AS SELECT id, id AS i, qty FROM orders;
-- types do not compare
CREATE STREAM o AS SELECT id, qty FROM orders WHERE name > 1;
-- NULL compares with nothing
CREATE STREAM o AS SELECT id, qty FROM orders WHERE name = NULL;
-- no arithmetic on text and numbers
CREATE STREAM o AS SELECT id, name + 1 AS x FROM orders;
-- MIN needs an undo on tables
CREATE TABLE t AS SELECT city, min(id) AS m FROM users GROUP BY city;
-- stray columns
CREATE TABLE t AS SELECT name, qty, count(*) AS n FROM orders GROUP BY name;
-- a table cannot become a stream
CREATE STREAM o AS SELECT * FROM users;
-- join without WITHIN
CREATE STREAM o AS SELECT o.id, p.paid FROM orders o JOIN payments p ON o.id = p.order_id;
-- join on several conditions
CREATE STREAM o AS SELECT o.id, p.paid FROM orders o JOIN payments p WITHIN 1 DAY ON o.id = p.order_id AND o.qty = p.paid;
-- join of different types
CREATE STREAM o AS SELECT o.id, p.paid FROM orders o JOIN payments p WITHIN 1 DAY ON o.name = p.order_id;
-- unknown property
CREATE STREAM o WITH (VALUE_FORMATT='JSON') AS SELECT * FROM orders;
-- format that is not there yet
CREATE STREAM o WITH (VALUE_FORMAT='AVRO') AS SELECT * FROM orders;
-- format that cannot hold the value
CREATE STREAM o WITH (VALUE_FORMAT='DELIMITED') AS SELECT * FROM orders;
-- taken name
CREATE STREAM users (id INT KEY) WITH (KAFKA_TOPIC='u', VALUE_FORMAT='JSON', PARTITIONS=1);
-- retention too short
CREATE TABLE t AS SELECT id, count(*) AS n FROM orders WINDOW TUMBLING (SIZE 1 HOUR, RETENTION 30 MINUTES) GROUP BY id;
-- final without a window
CREATE TABLE t AS SELECT id, count(*) AS n FROM orders GROUP BY id EMIT FINAL;
-- order by in a push query
SELECT id FROM orders ORDER BY id EMIT CHANGES;
-- table that cannot be pulled from
SELECT * FROM users;

-- retention that Kafka refuses
CREATE STREAM r (a INT) WITH (KAFKA_TOPIC='r', VALUE_FORMAT='JSON', PARTITIONS=1, RETENTION_MS=-5);
-- table function beside an aggregate
CREATE TABLE t AS SELECT id, count(explode(tags)) AS n FROM orders GROUP BY id;
-- table function that groups
CREATE TABLE t AS SELECT explode(tags) AS tag, count(*) AS n FROM orders GROUP BY explode(tags);
-- table function in CASE
CREATE STREAM o AS SELECT id, CASE WHEN qty > 1 THEN explode(tags) ELSE name END AS x FROM orders;
-- topic without a name
CREATE STREAM o WITH (KAFKA_TOPIC=' ') AS SELECT * FROM orders;
-- topics that are Kafka's own
CREATE STREAM offsets (a INT) WITH (KAFKA_TOPIC='__consumer_offsets', VALUE_FORMAT='JSON', PARTITIONS=1);
-- topics that are Kafka's own, of a query
CREATE STREAM o WITH (KAFKA_TOPIC='__transaction_state') AS SELECT * FROM orders;
-- alias that is a pseudo column, for a client
SELECT qty AS rowtime FROM orders EMIT CHANGES;
-- pseudo column under its own name, for a client
SELECT rowtime AS rowtime FROM orders EMIT CHANGES;
-- lookups by key only: BETWEEN is two ranges
SET 'ksql.query.pull.table.scan.enabled' = 'false';
SELECT * FROM totals WHERE id BETWEEN 'a' AND 'b';
-- lookups by key only: nothing but comparisons
SET 'ksql.query.pull.table.scan.enabled' = 'false';
SELECT * FROM totals WHERE id IS NULL;
-- lookups by key only: the column itself
SET 'ksql.query.pull.table.scan.enabled' = 'false';
SELECT * FROM totals WHERE ucase(id) = 'A';
-- bounds of windows that ksqlDB's lookups cannot hold
SET 'ksql.compat.quirks' = 'true';
CREATE TABLE w AS SELECT name, count(*) AS n FROM orders WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY name;
SELECT * FROM w WHERE name = 'a' AND WINDOWSTART > 5 AND WINDOWSTART = 10;
-- window started not then
SET 'ksql.compat.quirks' = 'true';
CREATE TABLE w AS SELECT name, count(*) AS n FROM orders WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY name;
SELECT * FROM w WHERE WINDOWEND <> 5;
-- bounds of windows, one range each
SET 'ksql.compat.quirks' = 'true';
CREATE TABLE w AS SELECT name, count(*) AS n FROM orders WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY name;
SELECT n FROM w WHERE name = 'a' AND WINDOWSTART BETWEEN 5 AND 10 AND 3 < WINDOWEND;
-- formats that are not there
CREATE STREAM f (a INT) WITH (KAFKA_TOPIC='f', VALUE_FORMAT='JSN');
-- formats that are nothing like those there are
CREATE STREAM f (a INT) WITH (KAFKA_TOPIC='f', VALUE_FORMAT='PARQUET');
-- keys that the format does not hold
CREATE TABLE f AS SELECT name, id, COUNT(*) FROM orders GROUP BY name, id;
