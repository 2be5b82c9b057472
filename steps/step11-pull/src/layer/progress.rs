//! What people see while an image comes: a bar for each layer on a terminal, and lines otherwise.

use crate::Digest;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use step01_uts::program::visible;

/// What is shown.
pub struct Progress {
    bars: MultiProgress,
    /// Whether there are lines in place of bars.
    lines: bool,
}

/// What is shown of one layer.
pub struct LayerProgress {
    bar: ProgressBar,
    id: String,
    lines: bool,
}

impl Progress {
    /// On standard error; nothing at all when `quiet`.
    pub fn new(quiet: bool) -> Progress {
        let is_terminal = stderr().is_terminal();
        let target = match quiet || !is_terminal {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        Progress {
            bars: MultiProgress::with_draw_target(target),
            lines: !quiet && !is_terminal,
        }
    }

    /// A line about the whole.
    pub fn say(&self, line: &str) {
        // Some words in it may be an image's.
        let line = visible(line);
        match self.lines {
            true => eprintln!("{line}"),
            false => drop(self.bars.println(line)),
        }
    }

    /// The bar of a layer that has `size` bytes.
    pub fn layer(&self, digest: &Digest, size: u64) -> LayerProgress {
        let style = "{prefix}: {msg:16} [{bar:30}] {bytes:>10} / {total_bytes}";
        let style = ProgressStyle::with_template(style).map(|style| style.progress_chars("=> "));
        let bar = self.bars.add(ProgressBar::new(size));
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let id = digest.short().to_owned();
        bar.set_prefix(id.clone());
        bar.set_message("Waiting");
        LayerProgress {
            bar,
            id,
            lines: self.lines,
        }
    }
}

impl LayerProgress {
    /// What happens to the layer now.
    pub fn becomes(&self, what: &'static str) {
        self.bar.set_message(what);
        if self.lines {
            eprintln!("{}: {what}", self.id);
        }
    }

    /// How many bytes there are.
    pub fn is_at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// The layer is there.
    pub fn ends(&self, how: &'static str) {
        if self.lines {
            eprintln!("{}: {how}", self.id);
        }
        if let Ok(style) = ProgressStyle::with_template("{prefix}: {msg}") {
            self.bar.set_style(style);
        }
        self.bar.finish_with_message(how);
    }
}
