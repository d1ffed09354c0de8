//! Rate limit of repeated warnings: one line a second and cause, with a count of the others.
//!
//! A filter in front of the formatter rather than a type at each call: so it holds for every warning there is, also for
//! those of libraries. A cause is a place in the code and its message with its error; other fields may vary. The first line
//! passes at once. Those that follow within a second are counted, and the writer thread reports the count.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::TARGET;

/// The most causes that are told apart in a second; further ones are counted by their place in the code alone.
const MAX_CAUSES: usize = 64;
/// The most bytes of a message and its error.
const MAX_TEXT: usize = 600;

/// The filter. Cloning shares its counts.
#[derive(Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hasher: RandomState,
    causes: HashMap<Cause, Repeated>,
}

/// A place in the code, and the hash of what it says.
type Cause = (Identifier, Option<u64>);

struct Repeated {
    level: Level,
    text: String,
    suppressed: u64,
}

impl Repeats {
    /// Writes how often each cause was suppressed since the last report, and forgets causes that were not.
    pub(super) fn report(&self) {
        for Repeated { level, text, suppressed } in self.end_window() {
            if level == Level::ERROR {
                tracing::error!(target: TARGET, suppressed, "repeated: {text}");
            } else {
                tracing::warn!(target: TARGET, suppressed, "repeated: {text}");
            }
        }
    }

    /// What was suppressed. Its causes go on to be suppressed for another window, in which the report stands for them.
    fn end_window(&self) -> Vec<Repeated> {
        let mut state = self.state();
        state.causes.retain(|_, repeated| repeated.suppressed > 0);
        let ended = |repeated: &mut Repeated| {
            let suppressed = std::mem::take(&mut repeated.suppressed);
            Repeated { level: repeated.level, text: repeated.text.clone(), suppressed }
        };
        state.causes.values_mut().map(ended).collect()
    }

    /// Whether the line is the first one of its cause.
    fn is_first(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let mut text = Text(format!("{}: ", metadata.target()));
        event.record(&mut text);
        let mut state = self.state();
        let callsite = metadata.callsite();
        let mut cause = (callsite.clone(), Some(state.hasher.hash_one(&text.0)));
        if state.causes.len() >= MAX_CAUSES && !state.causes.contains_key(&cause) {
            cause = (callsite, None);
        }
        if let Some(repeated) = state.causes.get_mut(&cause) {
            repeated.suppressed = repeated.suppressed.saturating_add(1);
            return false;
        }
        let repeated = Repeated { level: *metadata.level(), text: text.0, suppressed: 0 };
        state.causes.insert(cause, repeated);
        true
    }

    /// Nothing that is done under this lock can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer for all others, not a filter of one: tracing-subscriber forgets that a filter of one layer has refused an event
/// only when the event reaches the layer (0.3.23), and so drops the next one too.
impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        *metadata.level() > Level::WARN || metadata.target() == TARGET || self.is_first(event)
    }
}

/// What an event says of its cause.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => drop(write!(self.0, "{value:?}")),
            "error" | "cause" => drop(write!(self.0, " {}={value:?}", field.name())),
            _ => {}
        }
        if self.0.len() > MAX_TEXT {
            let end = (0..=MAX_TEXT).rev().find(|end| self.0.is_char_boundary(*end));
            self.0.truncate(end.unwrap_or_default());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{fmt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for &Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = &'a Lines;

        fn make_writer(&'a self) -> &'a Lines {
            self
        }
    }

    /// The lines of what is logged, with the filter or without.
    fn lines(limited: bool, log: impl FnOnce(&Repeats)) -> Vec<String> {
        let (lines, repeats) = (Lines::default(), Repeats::default());
        let layer = fmt::layer().with_writer(lines.clone()).with_ansi(false).without_time();
        let subscriber = registry().with(limited.then(|| repeats.clone())).with(layer);
        tracing::subscriber::with_default(subscriber, || log(&repeats));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn refuse(error: &str, units: u32) {
        tracing::warn!(%error, units, "storage is unavailable");
    }

    fn outage(repeats: &Repeats) {
        (0..1_000).for_each(|units| refuse("down", units));
        repeats.report();
    }

    #[test]
    fn one_line_passes_for_each_cause_and_the_others_are_counted() {
        let written = lines(true, outage);
        assert_eq!(written.len(), 2, "{written:?}");
        assert!(written[0].contains("storage is unavailable error=down units=0"), "{written:?}");
        assert!(written[1].contains("storage is unavailable error=down suppressed=999"), "{written:?}");
        assert!(written[1].starts_with("WARN frontrow::log"), "{written:?}");
    }

    #[test]
    fn control_without_the_filter_every_line_is_written() {
        assert_eq!(lines(false, outage).len(), 1_000);
    }

    #[test]
    fn an_outage_has_a_line_a_second_and_its_end_is_the_end() {
        let written = lines(true, |repeats| {
            for _ in 0..5 {
                refuse("down", 1);
                refuse("down", 1);
                repeats.report();
            }
            repeats.report();
            repeats.report();
            refuse("down", 7);
        });
        assert_eq!(written.len(), 1 + 5 + 1, "{written:?}");
        assert!(written[6].contains("units=7"), "a later outage is told at once: {written:?}");
    }

    #[test]
    fn other_errors_and_other_places_are_other_causes() {
        let written = lines(true, |_| {
            refuse("down", 1);
            refuse("full", 1);
            tracing::error!(error = "down", "storage is unavailable");
        });
        assert_eq!(written.len(), 3, "{written:?}");
    }

    #[test]
    fn causes_are_bounded() {
        let written = lines(true, |repeats| {
            (0..10_000).for_each(|n| refuse(&format!("error {n}"), 1));
            assert_eq!(repeats.state().causes.len(), MAX_CAUSES + 1);
            repeats.report();
        });
        assert_eq!(written.len(), MAX_CAUSES + 2, "and one line with the count of the rest");
    }

    #[test]
    fn lines_that_are_no_warnings_all_pass() {
        let written = lines(true, |_| (0..10).for_each(|_| tracing::info!("admitted")));
        assert_eq!(written.len(), 10);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let written = lines(true, |repeats| {
            let error = "가".repeat(1_000);
            (0..2).for_each(|_| refuse(&error, 1));
            repeats.report();
        });
        assert!(written[1].len() < MAX_TEXT + 100, "{}", written[1].len());
    }
}
