//! A file system of a few pages, which can be filled: the disk of a member's state.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::process::Program;

/// Room for the epoch file, twice.
const SIZE: &str = "size=64k";

/// A mounted file system, unmounted when this is dropped.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts it at a directory, which is made.
    pub fn new(at: &Path) -> Result<SmallDisk, LabError> {
        std::fs::create_dir_all(at).map_err(LabError::io(at.display().to_string()))?;
        let shown = at.display().to_string();
        Program::new([
            "mount",
            "-t",
            "tmpfs",
            "-o",
            SIZE,
            "hitless-testbeds",
            &shown,
        ])
        .run()?;
        Ok(SmallDisk { at: at.to_owned() })
    }

    /// Leaves no room for anything.
    pub fn fill(&self) -> Result<(), LabError> {
        let what = || format!("filling {}", self.at.display());
        let mut file =
            std::fs::File::create(self.at.join("filler")).map_err(LabError::io(what()))?;
        // Until there is no room: that error is what is wanted.
        while file.write_all(&[0; 512]).is_ok() {}
        Ok(())
    }

    /// There is room again.
    pub fn free(&self) -> Result<(), LabError> {
        let what = format!("emptying {}", self.at.display());
        std::fs::remove_file(self.at.join("filler")).map_err(LabError::io(what))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a member may still have its lock open.
        let shown = self.at.display().to_string();
        let _: Result<String, LabError> = Program::new(["umount", "-l", &shown]).run();
    }
}
