//! Compiling in a child process under limits. The child is this test binary, started for one test alone.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use millpond_types::{ErrorKind, Value};
use millpond_udfs::{CompileCommand, Host, HostOptions, InstanceScope, Limits, compile_child, inspect};

use crate::support::*;

/// The child: `it child::entry --exact --nocapture FOLDER`. In a run of all tests this does nothing.
#[test]
fn entry() {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let [_, name, _, _, folder] = args.as_slice()
        && name == "child::entry"
    {
        std::process::exit(compile_child::run([folder.clone()]).into());
    }
}

fn host_with_child(cache: &Path, limits: Limits) -> Host {
    let args = ["child::entry", "--exact", "--nocapture"].map(OsString::from).to_vec();
    let compiler = CompileCommand { program: std::env::current_exe().unwrap(), args };
    Host::new(HostOptions {
        limits,
        compiler: Some(compiler),
        cache_dir: Some(cache.to_path_buf()),
        ..HostOptions::default()
    })
}

#[test]
fn a_child_compiles_and_the_parent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let host = host_with_child(dir.path(), Limits::default());
    let bytes = guest("classify");
    let report = host.prepare(&bytes).unwrap();
    assert_eq!(report, inspect(&bytes, &Limits::default()).unwrap());
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 1, "the code, and nothing else");
    let module = host.load(&report, || panic!("it is in the cache")).unwrap();
    let section = function(&module, "URL_SECTION");
    let answer = call_in(&section, &mut section.instance(InstanceScope::Step), 1, &[strings(&["/a/b"])], 1).unwrap();
    assert_eq!(answer.0, [Value::String("a".to_string())]);

    let import = wat::parse_str("(component (import \"host:thing/api\" (instance (export \"f\" (func)))))").unwrap();
    let error = host.prepare(&import).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadRequest);
    assert!(error.message().contains("imports \"host:thing/api\""), "{error}");
}

#[test]
fn a_child_that_takes_too_much_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let words = guest("words");
    for limits in [
        Limits { compile_wall_max: Duration::from_millis(20), ..Limits::default() },
        Limits { compile_cpu_seconds_max: 1, ..Limits::default() },
        Limits { compile_memory_bytes_max: 100 << 20, ..Limits::default() },
    ] {
        let host = host_with_child(dir.path(), limits);
        let error = host.prepare(&words).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.message().starts_with("compiling the module took more than"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
