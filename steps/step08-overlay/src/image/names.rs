//! Names that a stranger chose, in messages.

use std::path::Path;
use step01_uts::program::visible;

/// A name that an archive chose, made readable on one line.
pub fn shown(name: &Path) -> String {
    const LONG: usize = 200;
    let name = visible(&name.to_string_lossy());
    match name.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}… ({} bytes)", &name[..at], name.len()),
        None => name,
    }
}
