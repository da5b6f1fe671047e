//! A file system of a test's own that can be filled: a tmpfs, which only root may mount. Where it cannot be, the tests say
//! so and do nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A small file system, unmounted at the end.
pub struct Disk(tempfile::TempDir);

impl Disk {
    /// `what` nothing is known of where there can be none.
    pub fn new(mb: usize, what: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mb}m"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|o| o.status.success());
        if !mounted {
            // Past what keeps the output of tests that succeed.
            let _said = writeln!(
                std::io::stderr(),
                "NOT RUN: no file system can be mounted here, so nothing is known of {what}"
            );
            return None;
        }
        Some(Self(directory))
    }

    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Takes what is left but for so much.
    pub fn fill(&self, leave_mb: usize) {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        let free = (found.f_bavail * found.f_frsize) as usize;
        std::fs::write(self.ballast(), vec![0; free.saturating_sub(leave_mb << 20)]).unwrap();
    }

    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").args(["-l"]).arg(self.0.path()).status();
    }
}
