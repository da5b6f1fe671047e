//! The commands at a terminal: a pseudo-terminal that Python's standard library opens, with keys as a person types them.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::process::{Process, binary};

const BRIDGE: &str = "import pty, sys, os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
const WAIT: Duration = Duration::from_secs(90);
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const ARROW_UP: &str = "\x1b[A";

struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not waited for yet.
    shown: String,
}

impl Terminal {
    fn open(args: &[&str], state: &std::path::Path) -> Self {
        Self::run(&[&[binary()], args].concat(), state)
    }

    fn run(words: &[&str], state: &std::path::Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", BRIDGE]).args(words).env("TERM", "xterm").env("XDG_STATE_HOME", state);
        command.env_remove("MILLPOND_PASSWORD").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("this test needs python3 for a terminal: {e}"));
        let keys = child.stdin.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, screen) = sync_channel(1000);
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(read) = out.read(&mut some) {
                if read == 0 || sender.send(some[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, screen, shown: String::new() }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until this is on the screen, and takes everything up to it.
    #[track_caller]
    fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("{text:?} is not shown within {WAIT:?}: {:?}", self.shown),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {text:?}: {:?}", self.shown),
            }
        }
    }

    #[track_caller]
    fn ends(mut self) -> i32 {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_types_sql() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&directory.path().join("data"));
    let http = server.http.clone();
    let mut terminal = Terminal::open(&["sql", "--server", &http], directory.path());
    terminal.shows("millpond> ");
    terminal.types(
        "CREATE STREAM PONDS (ID STRING KEY, V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');\r",
    );
    terminal.shows("Stream created");
    terminal.types("INSERT INTO PONDS VALUES ('a', 1); INSERT INTO PONDS VALUES ('b', 2);\r");

    // A statement over several lines ends with its semicolon, and each shows that it goes on; Tab completes what the server has.
    terminal.types("SELECT ID\r");
    terminal.shows("-> ");
    terminal.types("FROM PON\t");
    terminal.shows("PONDS");
    terminal.types(";\r");
    terminal.shows("2 rows");
    terminal.shows("millpond> ");

    // Ctrl-C drops a statement; and ends a query that would go on.
    terminal.types("SELECT nonsense\r");
    terminal.shows("-> ");
    terminal.types(CTRL_C);
    terminal.shows("millpond> ");
    terminal.types("SET 'auto.offset.reset' = 'earliest';\r");
    terminal.shows("earliest\"");
    terminal.types("SELECT ID, V FROM PONDS EMIT CHANGES;\r");
    terminal.shows("| b");
    terminal.types(CTRL_C);
    terminal.shows("millpond> ");
    terminal.types("SET 'ksql.functions.collect_list.limit' = '5';\r");
    terminal.shows("no effect in a session");
    // Tab completes columns of the source that the statement names, and functions.
    terminal.types("CREATE STREAM REEDS (HEIGHT_CM INT) WITH (KAFKA_TOPIC='r', PARTITIONS=1, VALUE_FORMAT='JSON');\r");
    terminal.shows("Stream created");
    terminal.types("DESCRIBE FUNCTION GEO_D\t");
    terminal.shows("GEO_DISTANCE");
    terminal.types(";\r");
    terminal.shows("millpond> ");
    terminal.types("SELECT * FROM REEDS\r");
    terminal.shows("-> ");
    terminal.types("WHERE HEIG\t");
    terminal.shows("HEIGHT_CM");
    terminal.types(" > 5 AND LEAS\t");
    terminal.shows("LEAST");
    terminal.types(CTRL_C);
    terminal.shows("millpond> ");
    // Arrow up brings back what was typed, here and after coming again.
    terminal.types("SET 'auto.offset.reset' = 'latest';\r");
    terminal.shows("latest\"");
    terminal.shows("millpond> ");
    terminal.types(ARROW_UP);
    terminal.shows("= 'latest';");
    terminal.types(CTRL_C);
    terminal.shows("millpond> ");
    terminal.types("EXIT\r");
    assert_eq!(terminal.ends(), 0);
    let mut terminal = Terminal::open(&["sql", "--server", &http], directory.path());
    terminal.shows("millpond> ");
    terminal.types(ARROW_UP);
    terminal.shows("EXIT");
    terminal.types(ARROW_UP);
    terminal.shows("SET 'auto.offset.reset' = 'latest';");
    terminal.types("\r");
    terminal.shows("latest\"");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
    server.stop();
}

#[test]
fn a_password_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&directory.path().join("data"));
    let address = server.kafka.to_string();
    let args = ["topic", "list", "--bootstrap", &address, "--user", "anna", "--sasl-mechanism", "plain"];
    let mut terminal = Terminal::open(&args, directory.path());
    terminal.shows("password for anna: ");
    terminal.types("hush-hush\r");
    let shown = terminal.shows("refuses the login by PLAIN");
    assert!(!shown.contains("hush"), "{shown:?}");
    assert_eq!(terminal.ends(), 1);

    let mut terminal = Terminal::open(&["topic", "delete", "no", "--bootstrap", &address], directory.path());
    terminal.shows("there is no topic \"no\"");
    assert_eq!(terminal.ends(), 1);
    let mut terminal = Terminal::open(&["produce", "t", "--bootstrap", &address], directory.path());
    terminal.shows("Ctrl-D ends");
    terminal.types("one\rtwo\r");
    terminal.types(CTRL_D);
    terminal.shows("2 records");
    assert_eq!(terminal.ends(), 0);
    server.stop();
}

#[test]
fn long_work_tells_how_far_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let server = Process::start(&directory.path().join("data"));
    let file = |name: &str| directory.path().join(name).display().to_string();
    let millpond = |words: &str| format!("{} {words} --bootstrap {}", binary(), server.kafka);
    let shell = |line: &str| Terminal::run(&["sh", "-c", line], directory.path());
    let feed = |wait: &str| format!("{{ for i in $(seq 1000); do echo line$i; done; {wait}; echo last; }}");
    // The last line comes when the others have been seen to be counted.
    let seen = file("seen");
    let until_seen = format!("while [ ! -e {seen} ]; do sleep 0.05; done");
    let mut terminal = shell(&format!("{} | {}", feed(&until_seen), millpond("produce t")));
    terminal.shows("\r\u{1b}[K1,000 records, 6.7 KiB, ");
    std::fs::write(seen, "").unwrap();
    // It is taken away before the last word.
    terminal.shows("\r\u{1b}[K1001 records, 6.7 KiB in ");
    assert_eq!(terminal.ends(), 0);

    // A share where the whole is known; Ctrl-C says how far it came.
    let consumer = millpond("consume t --count 2002");
    let mut terminal = shell(&format!("exec {consumer} >{}", file("out")));
    terminal.shows("1,001 records, 6.7 KiB, ");
    terminal.shows(", 50 %, ");
    terminal.types(CTRL_C);
    terminal.shows("\r\u{1b}[K1001 records, 6.7 KiB in ");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(std::fs::read_to_string(file("out")).unwrap().lines().count(), 1001);

    // Without a whole, the time so far.
    for more in ["", "--idle 60", "--group g"] {
        let consumer = millpond(&format!("consume t {more}"));
        let mut terminal = shell(&format!("exec {consumer} >{}", file("out")));
        terminal.shows("1,001 records, 6.7 KiB, ");
        let rest = terminal.shows(" s");
        assert!(!rest.contains('%'), "{more}: {rest:?}");
        terminal.types(CTRL_C);
        terminal.shows("1001 records, 6.7 KiB in ");
        assert_eq!(terminal.ends(), 0, "Ctrl-C is how it is meant to end");
    }
    // Up to ends that are known, a share of those: the reader waits within the first of two partitions.
    let create = Command::new("sh").args(["-c", &millpond("topic create u --partitions 2")]).output().unwrap();
    assert!(create.status.success(), "{create:?}");
    for partition in ["0", "1"] {
        let produce = millpond(&format!("produce u --quiet --partition {partition}"));
        let lines = format!("for i in $(seq 500); do printf '%01000d\\n' $i; done | {produce}");
        let made = Command::new("sh").args(["-c", &lines]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    let mut terminal = shell(&format!("{} | {{ sleep 1; cat >/dev/null; }}", millpond("consume u --until-end")));
    terminal.shows("500 records, ");
    terminal.shows(", 50 %, ");
    assert_eq!(terminal.ends(), 0);

    // Neither where it was asked for quiet, nor into a pipe.
    let feed = feed("sleep 1");
    let mut terminal = shell(&format!("{feed} | {}; echo done", millpond("produce t --quiet")));
    let shown = terminal.shows("done");
    assert_eq!(shown, "done");
    let piped = Command::new("sh").args(["-c", &format!("{feed} | {}", millpond("produce t"))]).output().unwrap();
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(said.starts_with("1001 records") && !said.contains('\u{1b}'), "{said:?}");
    server.stop();
}
