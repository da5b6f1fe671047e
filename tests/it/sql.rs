//! `millpond sql` as a process, against a server: scripts, their output and exit status, Ctrl-C. What statements tell of
//! Kafka's clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::cli::{Pond, Running};
use crate::process::{Process, binary};

const SOURCE: &str =
    "CREATE STREAM S (ID STRING KEY, V INT, NOTE STRING) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
    INSERT INTO S VALUES ('a', 1, 'x'); INSERT INTO S VALUES ('b', 20, NULL);";

struct Ran {
    code: Option<i32>,
    out: String,
    problems: String,
}

fn command(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["sql", "--server", server]).args(args).stdin(Stdio::null());
    command
}

fn run(server: &str, args: &[&str]) -> Ran {
    let output = command(server, args).output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        problems: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn good(server: &str, args: &[&str]) -> String {
    let ran = run(server, args);
    assert_eq!((ran.code, ran.problems.as_str()), (Some(0), ""), "{}", ran.out);
    ran.out
}

#[test]
fn scripts_show_rows_and_tell_failures() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&directory.path().join("data"));
    let http = server.http.clone();
    assert_eq!(good(&http, &["-e", SOURCE]), "Stream created\n");

    let rows = good(&http, &["-e", "SELECT * FROM S;"]);
    let expected = "\
        +----+----+------+\n\
        | ID |  V | NOTE |\n\
        +----+----+------+\n\
        | a  |  1 | x    |\n\
        | b  | 20 | null |\n\
        +----+----+------+\n\
        2 rows\n";
    assert_eq!(rows, expected);
    let json = good(
        &http,
        &["--output", "json", "-e", "SET 'auto.offset.reset'='earliest'; SELECT ID, V FROM S EMIT CHANGES LIMIT 2;"],
    );
    assert_eq!(json, "{\"ID\":\"a\",\"V\":1}\n{\"ID\":\"b\",\"V\":20}\n");
    for line in good(&http, &["--output", "json", "-e", "SHOW STREAMS; DESCRIBE S; SHOW QUERIES;"]).lines() {
        assert!(serde_json::from_str::<Json>(line).is_ok_and(|json| json["@type"].is_string()), "{line}");
    }
    let printed = good(&http, &["-e", "PRINT s FROM BEGINNING LIMIT 2;"]);
    assert_eq!(printed.matches("rowtime: ").count(), 2, "{printed}");

    // In the order of the flags; variables and scripts in scripts; a copy of what is shown.
    let (inner, outer) = (directory.path().join("inner.sql"), directory.path().join("outer.sql"));
    let spool = directory.path().join("spool");
    std::fs::write(&inner, "SELECT V FROM ${source}\n  WHERE ID = '${id}';").unwrap();
    let text = format!("SPOOL '{}';\nDEFINE id = 'b'; RUN SCRIPT '{}'; SPOOL OFF;", spool.display(), inner.display());
    std::fs::write(&outer, text).unwrap();
    let shown = good(&http, &["-e", "DEFINE source = 'S'", "-f", outer.to_str().unwrap()]);
    assert!(shown.contains("| 20 |") && shown.contains("1 row\n"), "{shown}");
    assert!(std::fs::read_to_string(&spool).unwrap().contains("| 20 |"));

    // The first failure ends the script; its place is in the script, also where the server found it.
    let script = directory.path().join("wrong.sql");
    std::fs::write(&script, "SHOW TOPICS;\nSELECT ID,\n  VV\nFROM S;\nDROP STREAM S;").unwrap();
    let ran = run(&http, &["-f", script.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{}", ran.problems);
    assert!(ran.problems.contains("3 |   VV\n  |   ^^\n"), "{}", ran.problems);
    let ran = run(&http, &["-e", "SELECT * FORM S;", "-e", "DROP STREAM S;"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.problems.contains("1 | SELECT * FORM S;\n  |          ^^^^\n"), "{}", ran.problems);
    assert!(good(&http, &["-e", "SHOW STREAMS"]).contains("| S "));

    // Standard input is a script too.
    let mut child = command(&http, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SHOW\n STREAMS;\nEXIT\nDROP STREAM S;\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("| S "));
    server.stop();
}

#[test]
fn statements_of_a_larger_cluster_run_and_say_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&directory.path().join("data"));
    let http = server.http.clone();
    let source =
        "CREATE STREAM S (ID STRING KEY, V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=2, REPLICAS=3, VALUE_FORMAT='JSON');";
    let made = good(&http, &["-e", source]);
    assert!(made.contains("Stream created") && made.contains("topic \"s\" is kept once"), "{made}");
    let sink = "CREATE TABLE N WITH (REPLICAS=3) AS SELECT ID, COUNT(*) AS N FROM S GROUP BY ID;";
    let made = good(&http, &["-e", sink]);
    assert!(made.contains("topic \"N\" is kept once"), "{made}");
    // The topic is there, kept once; the statement asks for what it was created with.
    let again = source.replace("STREAM S", "STREAM S2");
    assert!(good(&http, &["-e", &again]).contains("Stream created"));
    for name in ["S", "S2", "N"] {
        let shown = good(&http, &["-e", &format!("DESCRIBE {name} EXTENDED;")]);
        assert!(shown.contains("replication: 1"), "{shown}");
    }
    let refused = run(&http, &["-e", &source.replace("REPLICAS=3", "REPLICAS=0").replace("STREAM S", "STREAM S3")]);
    assert_ne!(refused.code, Some(0), "{}", refused.out);
    server.stop();
}

#[test]
fn what_is_set_wrong_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let http = server.http.clone();
    let wrong = run(&http, &["-e", "SET 'auto.offset.reset'='foo'; SHOW STREAMS;"]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    assert!(wrong.problems.contains("earliest or latest"), "{}", wrong.problems);
    for set in ["nope=foo", "auto.offset.reset=foo"] {
        let wrong = run(&http, &["--set", set, "-e", "SHOW STREAMS;"]);
        assert_eq!((wrong.code, wrong.out.as_str()), (Some(2), ""), "{set}");
        assert!(wrong.problems.contains("--set"), "{}", wrong.problems);
    }
    good(&http, &["-e", "-- a comment first\nSHOW STREAMS;"]);
    // A server that is not there is not gone to.
    let other = run(&http, &["-e", "SERVER http://127.0.0.1:1\n"]);
    assert!(other.problems.contains(&format!("still talking to {http}")), "{}", other.problems);
    server.stop();
}

#[test]
fn interrupt_ends_the_query_on_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(directory.path());
    let http = server.http.clone();
    good(&http, &["-e", SOURCE]);
    let select = "SET 'auto.offset.reset'='earliest'; SELECT * FROM S EMIT CHANGES; DROP STREAM S;";
    let mut child = command(&http, &["-e", select]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("| b ") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended without its rows");
    }
    assert!(good(&http, &["-e", "SHOW QUERIES;"]).contains("PUSH"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("Query terminated\n"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let until = Instant::now() + Duration::from_secs(60);
    while good(&http, &["-e", "SHOW QUERIES;"]).contains("PUSH") {
        assert!(Instant::now() < until, "the query goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(good(&http, &["-e", "SHOW STREAMS;"]).contains("| S "), "the script went on");
    server.stop();
    // Nobody there.
    let ran = run(&http, &["-e", "SHOW STREAMS;"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.problems.contains("cannot reach the server"), "{}", ran.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_count_groups_and_queries_that_read_them() {
    let pond = Pond::with("[security]\nauthorizer = true\nallow_everyone_if_no_acl_found = true\n");
    pond.topic("t", 2);
    pond.topic("none", 1);
    pond.server
        .sql(
            "CREATE STREAM S (K STRING KEY, V INT) WITH (KAFKA_TOPIC='t', VALUE_FORMAT='JSON');
             CREATE TABLE COUNTS WITH (KAFKA_TOPIC='counts') AS SELECT K, COUNT(*) AS N FROM S GROUP BY K;
             CREATE STREAM SAME WITH (KAFKA_TOPIC='same') AS SELECT * FROM S;",
        )
        .await;
    let mut members = ["one", "two", "two"].map(|group| {
        let mut command = pond.command(&["consume", "t", "--group", group]);
        Running(command.stdin(Stdio::null()).spawn().unwrap())
    });
    let until = async |of_t: Json| {
        let expected = [json!(["counts", 0, 0]), json!(["none", 0, 0]), json!(["same", 0, 0]), of_t];
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = pond.server.sql("SHOW ALL TOPICS EXTENDED;").await;
            let topics = shown[0]["topics"].as_array().unwrap().iter();
            let counts = topics.map(|t| json!([t["name"], t["consumerGroupCount"], t["consumerCount"]]));
            let counts: Vec<_> = counts.collect();
            if counts == expected {
                break;
            }
            assert!(Instant::now() < end, "{counts:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(json!(["t", 4, 5])).await;
    // A group that may be read but not described is not counted.
    let acl = |args: &str| {
        let all = format!("acl add --principal {args}");
        let args: Vec<&str> = all.split(' ').collect();
        pond.run(&args).ok();
    };
    acl("ANONYMOUS -o Read --group two");
    acl("ANONYMOUS -o Describe --group two --deny");
    until(json!(["t", 4, 5])).await;
    // Until now everybody might describe the cluster, and with it all groups.
    acl("somebody -o Describe --cluster");
    until(json!(["t", 3, 3])).await;
    assert!(members.iter_mut().all(|member| member.0.try_wait().unwrap().is_none()), "a member has gone");
    drop(members);
    pond.stop();
}
