//! A file system of a test's own that can be filled: a tmpfs.
//!
//! It is mounted in a name space of its own, which where users may make some needs no root, and reached by way of a process
//! in it; else here, by root. Where neither can be, a test that needs it says so and does nothing, unless everything is to be
//! run (`SLOW`, `CI`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A small file system, gone at the end.
pub struct Disk {
    root: PathBuf,
    mount: Mount,
    _directory: tempfile::TempDir,
}

enum Mount {
    /// Seen by this process, which ends with this one if not before.
    Apart(Child),
    Here,
}

impl Disk {
    /// `what` nothing is known of where there can be none.
    pub fn new(mb: usize, what: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (root, mount) = match apart(mb, directory.path()) {
            Ok((root, child)) => (root, Mount::Apart(child)),
            Err(_) if here(mb, directory.path()) => (directory.path().to_owned(), Mount::Here),
            Err(why) => {
                let why = format!("nothing is known of {what}: no file system can be mounted here. {why}");
                let asked =
                    ["SLOW", "CI"].into_iter().find(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
                assert!(asked.is_none(), "{why}");
                // Past what keeps the output of tests that succeed.
                let _said = writeln!(std::io::stderr(), "NOT RUN: {why}");
                return None;
            }
        };
        Some(Self { root, mount, _directory: directory })
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Takes what is left but for so much.
    pub fn fill(&self, leave_mb: usize) {
        let found = rustix::fs::statvfs(&self.root).unwrap();
        let free = (found.f_bavail * found.f_frsize) as usize;
        match std::fs::write(self.ballast(), vec![0; free.saturating_sub(leave_mb << 20)]) {
            // Something else was written meanwhile, and it is as full.
            Err(e) if leave_mb == 0 && e.kind() == std::io::ErrorKind::StorageFull => {}
            done => done.unwrap(),
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match &mut self.mount {
            Mount::Apart(child) => {
                let _killed = child.kill();
                let _ended = child.wait();
            }
            Mount::Here => {
                let _unmounted = Command::new("umount").args(["-l"]).arg(&self.root).status();
            }
        }
    }
}

fn apart(mb: usize, directory: &Path) -> Result<(PathBuf, Child), String> {
    let mut child = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs -o size=$0m tmpfs \"$1\" && echo mounted && exec cat"])
        .arg(mb.to_string())
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("unshare cannot be run: {e}"))?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let root = Path::new("/proc").join(child.id().to_string()).join("root").join(directory.strip_prefix("/").unwrap());
    // The process may be one that others do not see into.
    if said.trim() == "mounted" && std::fs::write(root.join("ballast"), b"").is_ok() {
        return Ok((root, child));
    }
    let _killed = child.kill();
    let output = child.wait_with_output().unwrap();
    Err(format!("unshare says {:?}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn here(mb: usize, directory: &Path) -> bool {
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mb}m"), "tmpfs"]).arg(directory).output();
    mount.is_ok_and(|o| o.status.success())
}
