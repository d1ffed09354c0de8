//! The load generator: one thread, many keep-alive connections, one request under way on each.
//!
//! It reads answers no further than needed and writes requests that were prepared before, so that on a machine which it
//! shares with the server it takes as little as it can.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http::Answer;
use crate::stats::figure;
use crate::usage::{Sample, Shares, Watch};

/// How long an answer may take; longer is an error.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the generator sleeps at most between two looks at an open loop's schedule. The poll of the system counts in
/// milliseconds, which is too coarse for it.
const OPEN_LOOP_NAP: Duration = Duration::from_micros(50);
/// The status of a request for which there is no capacity.
const REFUSED: u16 = 503;
const READ_BUFFER_BYTES: usize = 256 * 1_024;

/// Where requests come from.
pub(crate) trait Source {
    /// Writes the next request; false when there are no more.
    fn next(&mut self, into: &mut Vec<u8>) -> bool;

    /// Sees the head of an answer, as soon as it is there.
    fn answered(&mut self, _answer: &Answer) {}
}

/// Requests that were prepared before.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    next: usize,
    repeat: bool,
}

impl Requests {
    /// Each is sent once.
    pub(crate) fn once(requests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut all = Self::default();
        for request in requests {
            all.bytes.extend_from_slice(&request);
            all.ends.push(all.bytes.len());
        }
        all
    }

    /// They are sent over and over.
    pub(crate) fn repeated(requests: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { repeat: true, ..Self::once(requests) }
    }
}

impl Source for Requests {
    fn next(&mut self, into: &mut Vec<u8>) -> bool {
        if self.repeat && self.next == self.ends.len() {
            self.next = 0;
        }
        let begin = self.next.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(self.next).copied();
        let Some(request) = end.and_then(|end| self.bytes.get(begin..end)) else { return false };
        into.extend_from_slice(request);
        self.next += 1;
        true
    }
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// On each connection as soon as the last answer is there.
    Closed,
    /// So many a second, whatever becomes of them. Latency counts from when a request was due.
    Open(f64),
    /// So many a second, as long as a connection is free for them; what is due while none is, is not sent. Latency counts
    /// from when a request was sent: what waits in the generator waits for nobody.
    Storm(f64),
}

/// A load to put on a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    /// The server.
    pub(crate) address: SocketAddr,
    /// How many connections.
    pub(crate) connections: usize,
    /// When requests are sent.
    pub(crate) pace: Pace,
    /// The statuses that are right; any other fails the run.
    pub(crate) expected: &'a [u16],
    /// How long is not measured at first.
    pub(crate) warm_up: Duration,
    /// How long is measured, unless the requests come to an end before.
    pub(crate) duration: Duration,
    /// Whose processor time is looked at meanwhile.
    pub(crate) watch: Watch,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answers within the time that was measured.
    pub(crate) answers: u64,
    /// Bytes of their bodies.
    pub(crate) bytes: u64,
    /// The time that was measured.
    pub(crate) elapsed: Duration,
    /// How long answers took, in microseconds; refusals for want of capacity (503) are not among them.
    pub(crate) latency: Histogram<u64>,
    /// How long those refusals took.
    pub(crate) refusals: Histogram<u64>,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Who used the processors.
    pub(crate) shares: Shares,
}

impl Outcome {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        figure(self.answers) / self.elapsed.as_secs_f64()
    }

    /// Bytes of bodies a second.
    pub(crate) fn bytes_a_second(&self) -> f64 {
        figure(self.bytes) / self.elapsed.as_secs_f64()
    }

    /// A percentile of the latency, in milliseconds.
    pub(crate) fn milliseconds(&self, percentile: f64) -> f64 {
        figure(self.latency.value_at_percentile(percentile)) / 1_000.0
    }
}

impl Load<'_> {
    /// Puts the load on the server. Blocks until every request that was sent has its answer.
    ///
    /// # Errors
    /// An answer that is not expected, is late or cannot be read; and nothing measured at all.
    pub(crate) fn run(&self, source: &mut dyn Source) -> Result<Outcome> {
        let mut generator = Generator::connect(self, source)?;
        generator.work()?;
        generator.outcome()
    }
}

/// The times at which an open loop's requests are due.
#[derive(Debug)]
struct Schedule {
    begin: Instant,
    interval: f64,
    taken: u32,
    /// No request is due from here on.
    end: Duration,
}

impl Schedule {
    fn new(begin: Instant, rate: f64, end: Duration) -> Self {
        Self { begin, interval: 1.0 / rate, taken: 0, end }
    }

    fn offset(&self) -> Option<Duration> {
        let offset = Duration::from_secs_f64(f64::from(self.taken) * self.interval);
        (offset < self.end).then_some(offset)
    }

    /// When the next request is due; `None` at the end.
    fn next(&self) -> Option<Instant> {
        self.offset().map(|offset| self.begin + offset)
    }

    /// Takes the next request if it is due by now.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next().filter(|due| *due <= now)?;
        self.taken += 1;
        Some(due)
    }
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    answer: Answer,
    /// Whether the source has heard of the answer.
    is_told: bool,
    /// When the request under way was due: sent in a closed loop, planned in an open one. `None` when none is under way.
    since: Option<Instant>,
}

struct Generator<'a> {
    load: &'a Load<'a>,
    source: &'a mut dyn Source,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// What is due in an open loop while every connection is busy. No longer than the schedule is.
    backlog: VecDeque<Instant>,
    schedule: Option<Schedule>,
    begin: Instant,
    measure_from: Instant,
    /// Nothing is sent from here on; in a closed loop, nothing is counted either.
    until: Instant,
    exhausted: bool,
    at_begin: Option<Sample>,
    shares: Option<Shares>,
    last_answer: Instant,
    buffer: Vec<u8>,
    latency: Histogram<u64>,
    refusals: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    bytes: u64,
}

impl<'a> Generator<'a> {
    fn connect(load: &'a Load<'a>, source: &'a mut dyn Source) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections);
        for number in 0..load.connections {
            let stream =
                std::net::TcpStream::connect(load.address).context("cannot connect to the server")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            connections.push(Connection {
                stream,
                out: Vec::new(),
                written: 0,
                answer: Answer::default(),
                is_told: false,
                since: None,
            });
        }
        let begin = Instant::now();
        let whole = load.warm_up + load.duration;
        let schedule = match load.pace {
            Pace::Closed => None,
            Pace::Open(rate) | Pace::Storm(rate) => Some(Schedule::new(begin, rate, whole)),
        };
        Ok(Self {
            load,
            source,
            poll,
            idle: (0..connections.len()).collect(),
            connections,
            backlog: VecDeque::new(),
            schedule,
            begin,
            measure_from: begin + load.warm_up,
            until: begin + whole,
            exhausted: false,
            at_begin: None,
            shares: None,
            last_answer: begin,
            buffer: vec![0; READ_BUFFER_BYTES],
            latency: Histogram::new(3)?,
            refusals: Histogram::new(3)?,
            statuses: BTreeMap::new(),
            bytes: 0,
        })
    }

    fn work(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            let now = Instant::now();
            self.watch(now)?;
            self.send(now)?;
            let under_way = self.idle.len() < self.connections.len();
            if !under_way && self.is_over(now) {
                return Ok(());
            }
            ensure!(now < self.until + ANSWER_WITHIN, "an answer took longer than {ANSWER_WITHIN:?}");
            self.wait(&mut events, now)?;
            for event in &events {
                self.serve(event.token().0, event.is_writable())?;
            }
        }
    }

    /// Samples the processors at both ends of what is measured.
    fn watch(&mut self, now: Instant) -> Result<()> {
        if self.at_begin.is_none() && now >= self.measure_from {
            self.at_begin = Some(self.load.watch.sample()?);
        }
        if let Some(begin) = &self.at_begin
            && self.shares.is_none()
            && (now >= self.until || self.exhausted)
        {
            self.shares = Some(self.load.watch.since(begin)?);
        }
        Ok(())
    }

    fn is_over(&self, now: Instant) -> bool {
        self.exhausted || (now >= self.until && self.backlog.is_empty())
    }

    /// Sends what is due on the connections that are free.
    fn send(&mut self, now: Instant) -> Result<()> {
        if let Some(schedule) = &mut self.schedule {
            while let Some(due) = schedule.take(now) {
                self.backlog.push_back(due);
            }
        }
        while !self.exhausted && !self.idle.is_empty() {
            let due = match self.schedule {
                None => (now < self.until).then_some(now),
                Some(_) => self.backlog.pop_front(),
            };
            let Some(due) = due else { break };
            let Some(number) = self.idle.pop() else { break };
            let since = if matches!(self.load.pace, Pace::Storm(_)) { Instant::now() } else { due };
            self.begin_request(number, since)?;
        }
        if matches!(self.load.pace, Pace::Storm(_)) {
            self.backlog.clear();
        }
        Ok(())
    }

    fn begin_request(&mut self, number: usize, due: Instant) -> Result<()> {
        let connection = self.connections.get_mut(number).context("an unknown connection")?;
        connection.out.clear();
        connection.written = 0;
        if !self.source.next(&mut connection.out) {
            self.exhausted = true;
            self.until = self.until.min(Instant::now());
            self.idle.push(number);
            return Ok(());
        }
        connection.since = Some(due);
        connection.flush()
    }

    fn wait(&mut self, events: &mut Events, now: Instant) -> Result<()> {
        let patience = match &self.schedule {
            None => Duration::from_millis(20),
            Some(schedule) => {
                let to_next = schedule.next().map_or(OPEN_LOOP_NAP, |due| due.saturating_duration_since(now));
                thread::sleep(to_next.min(OPEN_LOOP_NAP));
                Duration::ZERO
            }
        };
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => Ok(polled?),
        }
    }

    fn serve(&mut self, number: usize, writable: bool) -> Result<()> {
        let connection = self.connections.get_mut(number).context("an unknown connection")?;
        if writable {
            connection.flush()?;
        }
        if connection.since.is_none() {
            return Ok(());
        }
        let is_complete = connection.read_answer(&mut self.buffer)?;
        if connection.answer.has_head() && !std::mem::replace(&mut connection.is_told, true) {
            self.source.answered(&connection.answer);
        }
        if !is_complete {
            return Ok(());
        }
        self.record(number)?;
        self.idle.push(number);
        // The connection is warm now: a closed loop goes on with it at once.
        if self.schedule.is_none() { self.send(Instant::now()) } else { Ok(()) }
    }

    fn record(&mut self, number: usize) -> Result<()> {
        let now = Instant::now();
        let connection = self.connections.get_mut(number).context("an unknown connection")?;
        let due = connection.since.take().context("an answer that nobody asked for")?;
        let status = connection.answer.status();
        if !self.load.expected.contains(&status) {
            bail!("an answer that was not expected: {}", connection.answer.shown());
        }
        connection.is_told = false;
        let counts = match self.schedule {
            None => now >= self.measure_from && now < self.until,
            Some(_) => due >= self.measure_from,
        };
        if counts {
            let micros = u64::try_from(now.duration_since(due).as_micros())?;
            if status == REFUSED {
                let retry_after = connection.answer.header("retry-after");
                ensure!(
                    retry_after.is_some(),
                    "a refusal without Retry-After: {}",
                    connection.answer.shown()
                );
                self.refusals.record(micros)?;
            } else {
                self.latency.record(micros)?;
            }
            *self.statuses.entry(status).or_default() += 1;
            self.bytes += connection.answer.body_bytes();
            self.last_answer = now;
        }
        connection.answer.clear();
        Ok(())
    }

    fn outcome(self) -> Result<Outcome> {
        let answers = self.latency.len() + self.refusals.len();
        ensure!(answers > 0, "nothing was measured in {:?}: too few requests", self.begin.elapsed());
        let end = if self.schedule.is_some() { self.last_answer } else { self.until };
        Ok(Outcome {
            answers,
            bytes: self.bytes,
            elapsed: end.duration_since(self.measure_from),
            latency: self.latency,
            refusals: self.refusals,
            statuses: self.statuses,
            shares: self.shares.context("the processors were not looked at")?,
        })
    }
}

impl Connection {
    fn flush(&mut self) -> Result<()> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// Reads what is there; true when the answer is complete.
    fn read_answer(&mut self, buffer: &mut [u8]) -> Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a connection: {}", self.answer.shown()),
                Ok(read) => {
                    if self.answer.feed(buffer.get(..read).unwrap_or_default())? {
                        return Ok(true);
                    }
                    // A read that does not fill the buffer has emptied the socket: the next bytes are a new event.
                    if read < buffer.len() {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read an answer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::http::request;

    /// Answers `GET /N` with status N, and takes its time for the first request of all.
    fn toy_server(first_takes: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut first = Some(first_takes);
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let takes = first.take();
                thread::spawn(move || answer_all(stream, takes));
            }
        });
        address
    }

    fn answer_all(mut stream: std::net::TcpStream, mut first_takes: Option<Duration>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            if let Some(takes) = first_takes.take() {
                thread::sleep(takes);
            }
            let status = line.split('/').nth(1).and_then(|path| path.split(' ').next()).unwrap();
            let answer = format!("HTTP/1.1 {status} As You Wish\r\nContent-Length: 2\r\n\r\n{{}}");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn load(address: SocketAddr, pace: Pace) -> Load<'static> {
        Load {
            address,
            connections: 1,
            pace,
            expected: &[200],
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(300),
            watch: Watch::default(),
        }
    }

    fn get(path: &str) -> Vec<u8> {
        request("GET", path, &[], None)
    }

    #[test]
    fn requests_are_sent_once_or_over_and_over() {
        let taken = |mut requests: Requests| {
            let mut all = Vec::new();
            let count = (0..5).filter(|_| requests.next(&mut all)).count();
            (count, String::from_utf8(all).unwrap())
        };
        let two = || [b"ab".to_vec(), b"c".to_vec()];
        assert_eq!(taken(Requests::once(two())), (2, "abc".to_owned()));
        assert_eq!(taken(Requests::repeated(two())), (5, "abcabcab".to_owned()));
        assert_eq!(taken(Requests::repeated([])), (0, String::new()));
    }

    #[test]
    fn a_closed_loop_counts_each_answer_once() {
        let address = toy_server(Duration::ZERO);
        let requests = Requests::once((0..40).map(|_| get("/200")));
        let outcome = Load { connections: 3, ..load(address, Pace::Closed) };
        let outcome = outcome.run(&mut { requests }).unwrap();
        // Those under way when the requests came to an end are not counted.
        assert!((37..=40).contains(&outcome.answers), "{}", outcome.answers);
        assert_eq!(outcome.statuses, BTreeMap::from([(200, outcome.answers)]));
        assert_eq!(outcome.bytes, 2 * outcome.answers);
        assert!(outcome.rate() > 0.0 && outcome.bytes_a_second() > outcome.rate());
    }

    #[test]
    fn what_is_not_expected_fails_the_run_and_is_shown() {
        let address = toy_server(Duration::ZERO);
        let error = load(address, Pace::Closed).run(&mut Requests::once([get("/409")])).unwrap_err();
        assert!(error.to_string().contains("409 As You Wish: {}"), "{error:#}");
    }

    #[test]
    fn an_open_loop_counts_from_when_a_request_was_due() {
        // 100 a second on one connection that stalls for 200 ms: 20 become due meanwhile, and half of them by its middle.
        let address = toy_server(Duration::from_millis(200));
        let mut requests = Requests::repeated([get("/200")]);
        let outcome = load(address, Pace::Open(100.0)).run(&mut requests).unwrap();
        assert_eq!(outcome.answers, 30, "every request that was due is sent and counted");
        let late = outcome.latency.iter_recorded().filter(|value| value.value_iterated_to() >= 100_000);
        let late: u64 = late.map(|value| value.count_at_value()).sum();
        assert!(late >= 10, "{late}");
    }

    #[test]
    fn a_schedule_keeps_its_times_however_late_it_is_looked_at() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut schedule = Schedule::new(begin, 100.0, Duration::from_millis(35));
        assert_eq!(schedule.take(at(0)), Some(at(0)));
        assert_eq!(schedule.take(at(9)), None);
        assert_eq!(schedule.next(), Some(at(10)));
        assert_eq!(schedule.take(at(500)), Some(at(10)));
        assert_eq!(schedule.take(at(500)), Some(at(20)));
        assert_eq!(schedule.take(at(500)), Some(at(30)));
        assert_eq!((schedule.take(at(500)), schedule.next()), (None, None));
    }
}
