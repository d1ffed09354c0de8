//! Bounded log queue with one writer thread.
//!
//! Pushing never blocks and never fails. A line that finds the queue full, or that the output refuses, is lost and counted;
//! the count is reported after the next line that is written. Memory is bounded by [`QUEUED_BYTES`].

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait for the output.
const QUEUED_LINES: usize = 16_384;
/// The most bytes that wait for the output.
const QUEUED_BYTES: usize = 16 << 20;
/// How often what the log has to say about itself is written.
const TICK: Duration = Duration::from_secs(1);
/// The longest a flush takes.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The front end of the queue. Cloning shares it.
#[derive(Clone)]
pub(super) struct Sink {
    queue: SyncSender<Job>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    lost: AtomicU64,
    queued_bytes: AtomicUsize,
}

enum Job {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Sink {
    /// Starts the writer thread. `report_loss` receives how many lines were lost since the last report, and in all;
    /// `each_second` runs once a second as long as the output is not stalled.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        report_loss: impl Fn(u64, u64) + Send + 'static,
        each_second: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUED_LINES);
        let state = Arc::<State>::default();
        let writer = Writer { output, state: state.clone(), reported: 0 };
        let body = move || writer.run(&jobs, &report_loss, &each_second);
        thread::Builder::new().name("frontrow-log".to_owned()).spawn(body)?;
        Ok(Self { queue, state })
    }

    /// Queues a line, or counts it as lost.
    pub(super) fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        let queued = self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued.saturating_add(bytes) > QUEUED_BYTES || self.queue.try_send(Job::Line(line)).is_err() {
            self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what is queued is written, at most [`FLUSH_WITHIN`].
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_WITHIN;
        let (done, flushed) = sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(TrySendError::Full(refused)) = self.queue.try_send(job) {
            if Instant::now() >= deadline {
                return;
            }
            job = refused;
            thread::sleep(Duration::from_millis(5));
        }
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(self)
    }
}

/// Takes one formatted event, which the formatter writes at once.
pub(super) struct LineWriter<'a>(&'a Sink);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The back end of the queue.
struct Writer<O> {
    output: O,
    state: Arc<State>,
    /// How many lost lines have been reported.
    reported: u64,
}

impl<O: Write> Writer<O> {
    fn run(mut self, jobs: &Receiver<Job>, report_loss: &impl Fn(u64, u64), each_second: &impl Fn()) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            match jobs.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(Job::Line(line)) => {
                    self.state.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    if self.output.write_all(&line).is_ok() {
                        self.report(report_loss);
                    } else {
                        self.state.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Job::Flush(done)) => {
                    let _ = self.output.flush();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_tick {
                survive(each_second);
                next_tick = Instant::now() + TICK;
            }
        }
    }

    fn report(&mut self, report_loss: &impl Fn(u64, u64)) {
        let lost = self.state.lost.load(Ordering::Relaxed);
        if lost > self.reported {
            let since = lost - self.reported;
            self.reported = lost;
            survive(|| report_loss(since, lost));
        }
    }
}

/// Runs `step`; a panic in it does not end the writer thread.
fn survive(step: impl Fn()) {
    let _ = catch_unwind(AssertUnwindSafe(step));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// An output that fails or stalls while it is told to.
    #[derive(Clone, Default)]
    struct Output {
        written: Arc<Mutex<Vec<u8>>>,
        fails: Arc<AtomicBool>,
        stalls: Arc<AtomicBool>,
    }

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            while self.stalls.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            if self.fails.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn started(output: &Output) -> (Sink, Receiver<(u64, u64)>) {
        let (reports, received) = sync_channel(100);
        let sink = Sink::start(output.clone(), move |lost, all| reports.send((lost, all)).unwrap(), || {});
        (sink.unwrap(), received)
    }

    #[test]
    fn lines_come_out_in_order_and_a_flush_waits_for_them() {
        let output = Output::default();
        let (sink, reports) = started(&output);
        (0..100).for_each(|n| sink.push(format!("{n}\n").into_bytes()));
        sink.flush();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(output.text(), expected);
        assert!(reports.try_recv().is_err(), "nothing was lost");
    }

    #[test]
    fn lines_that_the_output_refuses_are_counted_and_reported_once_it_works() {
        let output = Output::default();
        let (sink, reports) = started(&output);
        output.fails.store(true, Ordering::SeqCst);
        (0..3).for_each(|_| sink.push(b"lost\n".to_vec()));
        sink.flush();
        assert!(reports.try_recv().is_err(), "a report would be lost as well");
        output.fails.store(false, Ordering::SeqCst);
        sink.push(b"there\n".to_vec());
        assert_eq!(reports.recv_timeout(LONG), Ok((3, 3)));
        assert_eq!(output.text(), "there\n");
    }

    #[test]
    fn a_stalled_output_blocks_neither_pushing_nor_flushing() {
        let output = Output::default();
        let (sink, reports) = started(&output);
        output.stalls.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let pushed = QUEUED_LINES + 1_000;
        (0..pushed).for_each(|_| sink.push(b"line\n".to_vec()));
        sink.flush();
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        output.stalls.store(false, Ordering::SeqCst);
        let (lost, _) = reports.recv_timeout(LONG).unwrap();
        assert!((998..=1_000).contains(&lost), "all but the queue and the line that stalled: {lost}");
    }

    #[test]
    fn queued_bytes_are_bounded() {
        let output = Output::default();
        let (sink, reports) = started(&output);
        output.stalls.store(true, Ordering::SeqCst);
        (0..40).for_each(|_| sink.push(vec![b'x'; 1 << 20]));
        output.stalls.store(false, Ordering::SeqCst);
        let (lost, _) = reports.recv_timeout(LONG).unwrap();
        assert!((23..=24).contains(&lost), "{lost}");
    }

    #[test]
    fn a_panic_in_a_report_does_not_end_the_writer() {
        let output = Output::default();
        let sink = Sink::start(output.clone(), |_, _| panic!("on purpose"), || {}).unwrap();
        output.fails.store(true, Ordering::SeqCst);
        sink.push(b"lost\n".to_vec());
        sink.flush();
        output.fails.store(false, Ordering::SeqCst);
        sink.push(b"first\n".to_vec());
        sink.push(b"second\n".to_vec());
        sink.flush();
        assert_eq!(output.text(), "first\nsecond\n");
    }
}
