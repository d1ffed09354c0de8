//! What happens in a run, as a digest and, if wanted, as text.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;

/// Every step and event goes into the digest: runs with the same one have gone the same way.
pub(crate) struct Trace {
    digest: DefaultHasher,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { digest: DefaultHasher::new(), print }
    }

    /// A task takes a step.
    pub(crate) fn step(&mut self, now: u64, task: u64) {
        self.digest.write_u64(now);
        self.digest.write_u64(task);
    }

    /// Something that a reader wants to know.
    pub(crate) fn event(&mut self, now: u64, event: fmt::Arguments<'_>) {
        // Writing to a digest cannot fail.
        let _ = fmt::write(&mut Digested(&mut self.digest), event);
        if self.print {
            // Whoever reads along may have seen enough.
            let _ = writeln!(std::io::stdout(), "{:>5}.{:06} {event}", now / 1_000_000, now % 1_000_000);
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }
}

struct Digested<'a>(&'a mut DefaultHasher);

impl fmt::Write for Digested<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
