//! Progress on long work: a live bar on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::domain::improve::search::Progress;

use super::Terminal;

/// A bar on standard error, or nothing where nobody would see it.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar with a name in front.
    pub fn new(terminal: &Terminal, name: &str) -> Self {
        let bar = ProgressBar::with_draw_target(
            Some(0),
            if terminal.is_lively() {
                ProgressDrawTarget::stderr_with_hz(8)
            } else {
                ProgressDrawTarget::hidden()
            },
        );
        let style =
            ProgressStyle::with_template("{prefix} {wide_msg} {pos}/{len} rows [{elapsed}]")
                .expect("because the template is a constant that a test renders");
        bar.set_style(style);
        bar.set_prefix(name.to_owned());
        if terminal.is_lively() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }

    /// Show how a search goes.
    pub fn search(&self, progress: &Progress<'_>) {
        self.bar.set_length(progress.rows as u64);
        self.bar.set_position(progress.rows_done as u64);
        self.bar.set_message(format!(
            "{}: {} of {} candidates left, {} predictions",
            progress.stage, progress.alive, progress.entered, progress.evaluations
        ));
    }

    /// Say something above the bar.
    pub fn println(&self, line: &str) {
        self.bar.println(line);
    }

    /// Take the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
