//! What a terminal shows while an upload runs.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar on standard error; nothing at all where that is not a terminal.
#[derive(Debug)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// For a source of `size` bytes, if that is known.
    pub fn new(name: &str, size: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self::hidden();
        }
        let template = match size {
            Some(_) => "{prefix} [{bar:30}] {percent}% {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {msg}",
            None => "{prefix} {spinner} {elapsed}, {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is fixed and well formed");
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr_with_hz(5));
        Self(Some(bar.with_style(style.progress_chars("=> ")).with_prefix(name.to_owned())))
    }

    /// One that shows nothing.
    pub fn hidden() -> Self {
        Self(None)
    }

    /// So many bytes of the source are settled, and so many records written.
    pub fn settled(&self, bytes: u64, written: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
            bar.set_message(format!("{written} written"));
        }
    }

    /// A line of text above the bar; without a bar, on standard error all the same.
    pub fn message(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
