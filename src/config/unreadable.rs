//! Why a file cannot be read, in words that name the cure.

use std::fmt;
use std::io;
use std::path::Path;

use super::diagnostic::Problem;
use super::place::quiet;

/// A file that whoever runs may not read: what an [`io::Error`] of a [`Read`](super::Read) may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who runs.
    pub user: u32,
    /// Whose the file is.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, owner, mode } = self;
        write!(
            f,
            "user {user}, who runs this, may not read it (it belongs to user {owner}, mode {mode:o})"
        )
    }
}

impl std::error::Error for Denied {}

/// What is wrong, where `named` says whether the place shows the file's name already.
pub(super) fn problem(path: &Path, named: bool, error: &io::Error) -> Problem {
    let shown = quiet(&path.to_string_lossy()).to_string();
    let what = if named {
        "it".to_owned()
    } else {
        format!("`{shown}`")
    };
    let denied = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Denied>());
    if error.kind() == io::ErrorKind::IsADirectory {
        let wrong = format!(
            "{what} is a folder: Docker makes one where the file of a bind mount is missing"
        );
        let right = "remove the folder, put the file in its place, and make the container anew";
        Problem::new(wrong, right)
    } else if let Some(denied) = denied {
        let wrong = format!("{what} cannot be read: {denied}");
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = quiet(&name.to_string_lossy());
        let user = denied.user;
        let right = format!("let that user read it, where the file lies: `chown {user} {name}`");
        Problem::new(wrong, right)
    } else {
        let wrong = format!("{what} cannot be read: {error}");
        Problem::new(wrong, "name a text file in UTF-8 that this user may read")
    }
}
