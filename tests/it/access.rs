//! Statements act with the rights of whoever sends them: the library's sessions, and HTTP.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use millpond::{Database, ErrorKind, Session};
use millpond_broker::security::acl::{Binding, Filter, Operation, RawBinding, ResourceType};
use millpond_broker::security::{AuthorizationSettings, Authorizer, Principal};
use millpond_server::{HttpOptions, HttpSecurity};
use millpond_types::access::Rights;
use serde_json::{Value as Json, json};

use crate::library::open;
use crate::process::client;

fn entry(user: &str, resource: ResourceType, name: &str, operation: Operation) -> Binding {
    let raw = RawBinding {
        resource: resource.code(),
        name,
        pattern: 3,
        principal: &format!("User:{user}"),
        host: "*",
        operation: operation.code(),
        permission: 3,
    };
    Binding::check(raw).unwrap()
}

struct Fixture {
    db: Database,
    authorizer: Authorizer,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let settings = AuthorizationSettings::default();
        let authorizer = Authorizer::load(db.storage().clone(), settings, &[Principal::user("root")]).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { db, authorizer, runtime, _directory: directory }
    }

    fn session(&self, user: &str) -> Session {
        let mut session = Session::new();
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        session.restrict(Rights::new(Arc::new(self.authorizer.clone()), Principal::user(user), host));
        session
    }

    fn allow(&self, user: &str, topic: &str, operation: Operation) {
        let entries = vec![entry(user, ResourceType::Topic, topic, operation)];
        self.runtime.block_on(self.authorizer.create(entries)).unwrap();
    }

    /// Runs statements; what was missing where they are refused.
    fn run(&self, user: &str, statements: &str) -> Result<(), String> {
        match self.db.execute_in(statements, &mut self.session(user)) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::Forbidden => Err(e.message().to_owned()),
            Err(e) => panic!("{statements}: {e}"),
        }
    }

    fn select(&self, user: &str, select: &str) -> Result<(), String> {
        match self.db.engine().select(select, &self.session(user)) {
            Ok(_) => Ok(()),
            Err(e) if e.problem.kind() == ErrorKind::Forbidden => Err(e.to_string()),
            Err(e) => panic!("{select}: {e}"),
        }
    }
}

fn denied(right: &str, topic: &str) -> Result<(), String> {
    Err(format!("Authorization denied to {right} on topic(s): [{topic}]"))
}

#[test]
fn statements_need_the_rights_to_their_topics() {
    use Operation::{Create, Describe, Read, Write};
    let f = Fixture::new();
    let source = "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='in', PARTITIONS=1, VALUE_FORMAT='JSON');";
    assert_eq!(f.run("alice", source), denied("Read", "in"));
    f.allow("alice", "in", Read);
    assert_eq!(f.run("alice", source), denied("Create", "in"));
    f.allow("alice", "in", Create);
    assert_eq!(f.run("alice", source), Ok(()));

    let table = "CREATE TABLE T WITH (KAFKA_TOPIC='out') AS SELECT K, COUNT(*) AS N FROM S GROUP BY K;";
    assert_eq!(f.run("bob", table), denied("Read", "in"));
    assert_eq!(f.run("alice", table), denied("Write", "out"));
    f.allow("alice", "out", Write);
    assert_eq!(f.run("alice", table), denied("Create", "out"));
    f.allow("alice", "out", Create);
    assert_eq!(f.run("alice", table), Ok(()));

    let insert = "INSERT INTO S (K, V) VALUES ('a', 1);";
    assert_eq!(f.run("alice", insert), denied("Write", "in"));
    f.allow("alice", "in", Write);
    assert_eq!(f.run("alice", insert), Ok(()));
    assert!(f.db.engine().inserter("S", &f.session("bob")).is_err_and(|e| e.kind() == ErrorKind::Forbidden));

    for (select, topic) in [
        ("SELECT * FROM S EMIT CHANGES LIMIT 1;", "in"),
        ("SELECT * FROM T;", "out"),
        ("SELECT * FROM S;", "in"),
        ("PRINT 'in';", "in"),
    ] {
        assert_eq!(f.select("bob", select), denied("Read", topic), "{select}");
    }
    f.allow("bob", "out", Read);
    assert_eq!(f.select("bob", "SELECT * FROM T;"), Ok(()));

    // Bob may describe what he may read, and sees nothing else.
    assert_eq!(f.run("bob", "DESCRIBE S;"), denied("Describe", "in"));
    assert_eq!(f.run("bob", "DESCRIBE T;"), Ok(()));
    let shown = |user: &str, statement: &str| {
        let answers = f.db.execute_in(statement, &mut f.session(user)).unwrap();
        let text = format!("{:?}", answers[0].entity);
        (text.contains("\"S\"") || text.contains("\"in\""), text.contains("\"T\"") || text.contains("\"out\""))
    };
    assert_eq!(shown("bob", "SHOW STREAMS;"), (false, false));
    assert_eq!(shown("bob", "SHOW TABLES;"), (false, true));
    assert_eq!(shown("bob", "SHOW TOPICS;"), (false, true));
    f.allow("bob", "in", Describe);
    assert_eq!(shown("bob", "SHOW TOPICS;"), (true, true));
    f.db.close().unwrap();
}

#[test]
fn what_others_made_is_left_to_them_and_to_those_who_alter_the_cluster() {
    let f = Fixture::new();
    for topic in ["in", "out"] {
        f.allow("alice", topic, Operation::All);
        f.allow("bob", topic, Operation::Read);
    }
    let made = "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='in', PARTITIONS=1, VALUE_FORMAT='JSON');
                CREATE STREAM O WITH (KAFKA_TOPIC='out') AS SELECT * FROM S;";
    assert_eq!(f.run("alice", made), Ok(()));
    let query = f.db.engine().catalog().queries.keys().next().unwrap().clone();
    for statement in [
        format!("TERMINATE {query};"),
        "TERMINATE ALL;".into(),
        format!("PAUSE {query};"),
        "DROP STREAM O;".into(),
        "ALTER STREAM S ADD COLUMN W INT;".into(),
    ] {
        let refused = f.run("bob", &statement);
        assert!(refused.is_err_and(|why| why.contains("somebody else")), "{statement}");
    }
    // It is hers after a restart too.
    let Fixture { db, authorizer, runtime, _directory } = f;
    db.close().unwrap();
    drop((db, authorizer));
    let db = open(_directory.path());
    let authorizer =
        Authorizer::load(db.storage().clone(), AuthorizationSettings::default(), &[Principal::user("root")]).unwrap();
    let f = Fixture { db, authorizer, runtime, _directory };
    assert_eq!(f.run("alice", &format!("PAUSE {query};")), Ok(()));
    // Her query goes on with the rights that she had.
    f.runtime.block_on(f.authorizer.delete(&[Filter::any()])).unwrap();
    assert_eq!(f.run("alice", &format!("RESUME {query};")), Ok(()));
    assert_eq!(f.db.engine().query_state(&query).0, "RUNNING");
    let alter = entry("bob", ResourceType::Cluster, "kafka-cluster", Operation::Alter);
    f.runtime.block_on(f.authorizer.create(vec![alter])).unwrap();
    assert_eq!(f.run("bob", &format!("TERMINATE {query};")), Ok(()));
    assert_eq!(f.run("bob", "DROP STREAM O DELETE TOPIC;"), denied("Delete", "out"));
    assert_eq!(f.run("bob", "DROP STREAM O;"), Ok(()));
    assert_eq!(f.run("root", "DROP STREAM S DELETE TOPIC;"), Ok(()));
    f.db.close().unwrap();
}

#[test]
fn http_refuses_as_ksqldb_does() {
    let f = Fixture::new();
    f.db.execute("CREATE STREAM S (V INT) WITH (KAFKA_TOPIC='in', PARTITIONS=1, VALUE_FORMAT='JSON');").unwrap();
    let (engine, authority) = (f.db.engine().clone(), Arc::new(f.authorizer.clone()));
    f.runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = HttpOptions { authority: Some(authority), ..HttpOptions::default() };
        let server =
            millpond_server::serve(listener, engine, "cluster".into(), Vec::new(), options, HttpSecurity::default())
                .unwrap();
        let url = |path: &str| format!("http://{}{path}", server.address);
        let insert = json!({ "ksql": "INSERT INTO S (V) VALUES (1);" }).to_string();
        let select = json!({ "sql": "SELECT * FROM S EMIT CHANGES;" }).to_string();
        for (path, body, what) in
            [("/ksql", &insert, "Write on topic(s): [in]"), ("/query-stream", &select, "Read on topic(s): [in]")]
        {
            let answer = client().post(url(path)).body(body.clone()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 403, "{path}");
            let body: Json = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            let message = format!("Authorization denied to {what}");
            assert_eq!((body["@type"].as_str(), body["error_code"].as_u64()), (Some("generic_error"), Some(40301)));
            assert_eq!(body["message"].as_str(), Some(message.as_str()));
        }
        let put = client().put(url("/udfs/x")).body("not a component").send().await.unwrap();
        assert_eq!(put.status().as_u16(), 403);
        for path in ["/processing-log", "/metrics"] {
            assert_eq!(client().get(url(path)).send().await.unwrap().status().as_u16(), 403, "{path}");
        }
        let write = entry("ANONYMOUS", ResourceType::Topic, "in", Operation::Write);
        f.authorizer.create(vec![write]).await.unwrap();
        let done = client().post(url("/ksql")).body(insert).send().await.unwrap();
        assert_eq!(done.status().as_u16(), 200);
        // Who may write a subject reads no other one through references, and gives out no ids.
        let reference = json!([{ "name": "Secret", "subject": "secret-value", "version": 1 }]);
        let hidden = json!({ "schema": "\"Secret\"", "references": reference }).to_string();
        let numbered = json!({ "schema": "\"int\"", "id": 7 }).to_string();
        for (path, body, expected) in [
            ("/subjects/in-value/versions", &hidden, 403),
            ("/subjects/in-value", &hidden, 403),
            ("/compatibility/subjects/in-value/versions", &hidden, 403),
            ("/subjects/in-value/versions", &numbered, 403),
            ("/subjects/in-value/versions", &numbered.replace("\"id\"", "\"x\""), 200),
        ] {
            let answer = client().post(url(path)).body(body.clone()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), expected, "{path} {body}");
        }
        server.shutdown().await;
    });
    f.db.close().unwrap();
}
