//! A connection that does not wait for ever, and is read in its turn.
//!
//! actix bounds how long the first head of a connection may take, and how long nothing at all may come; not how long a later
//! head may take, nor how long a client may take nothing of its answer. A client could hold connections, and what is written
//! for it, at the cost of a byte now and then.
//!
//! A request costs one look at the clock. The timers are set once in a while, not for every request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use frontrow_api::Stopping;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::address_limit::Slot;
use super::turns::{Place, Turns};

/// How long a client may take nothing of its answer once the server stops.
const TAKE_WHEN_STOPPING: Duration = Duration::from_secs(3);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// From connecting to the first byte of the first request; no bound when absent.
    pub(super) first_byte_within: Option<Duration>,
    /// From the first byte of a request to the first of its answer: its head, its body, and the work.
    pub(super) answer_within: Duration,
    /// To take some of what is written.
    pub(super) take_within: Duration,
}

/// A stream whose other side must get on.
pub(super) struct Patient<S> {
    stream: S,
    bounds: Bounds,
    /// The deadline of the first byte; absent once it has arrived.
    first_byte_by: Option<Instant>,
    /// Since when something came and nothing was answered.
    unanswered_since: Option<Instant>,
    /// Since when nothing can be written.
    stuck_since: Option<Instant>,
    reading: Alarm,
    writing: Alarm,
    /// When it is read.
    turns: Turns,
    place: Place,
    stopping: Stopping,
    /// Counts the connection for its address for as long as the stream lives.
    _slot: Option<Slot>,
}

/// A stream that can tell whether there is something to be read.
pub(super) trait Readable {
    /// Ready when there is; else the task is woken once there is.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Readable for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

impl<S> Patient<S> {
    /// Holds the other side to these bounds, and is read in its turn.
    pub(super) fn new(
        stream: S,
        bounds: Bounds,
        (turns, stopping): (Turns, Stopping),
        slot: Option<Slot>,
    ) -> Self {
        let first_byte_by = bounds.first_byte_within.and_then(|within| Instant::now().checked_add(within));
        Self {
            stream,
            bounds,
            first_byte_by,
            unanswered_since: None,
            stuck_since: None,
            reading: Alarm(None),
            writing: Alarm(None),
            turns,
            place: Place::Idle,
            stopping,
            _slot: slot,
        }
    }

    /// When the client must have sent what is waited for.
    fn read_deadline(&self) -> Option<Instant> {
        match (self.unanswered_since, self.place) {
            (Some(since), _) => since.checked_add(self.bounds.answer_within),
            // What waits for its turn has arrived.
            (None, Place::Waiting(_)) => None,
            (None, Place::Idle | Place::Reading) => self.first_byte_by,
        }
    }
}

/// Wakes the task at a time, or a little early: one that is set is left alone until it rings, unless it would ring too late.
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether this time has come; if not, the task is woken once it has.
    fn has_rung(&mut self, at: Option<Instant>, context: &mut Context<'_>) -> bool {
        let Some(at) = at else { return false };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= at {
                return true;
            }
            sleep.as_mut().reset(at);
        }
        false
    }
}

fn too_slow(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Readable + Unpin> Patient<S> {
    fn poll_read_in_turn(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place != Place::Reading {
            ready!(self.stream.poll_readable(context))?;
            ready!(self.turns.poll(&mut self.place, context));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() {
            self.place = Place::Idle;
        }
        read
    }
}

impl<S: AsyncRead + Readable + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.poll_read_in_turn(context, buffer) {
            Poll::Pending => {
                let deadline = this.read_deadline();
                if this.reading.has_rung(deadline, context) {
                    return Poll::Ready(Err(too_slow("the client does not finish its request")));
                }
                Poll::Pending
            }
            ready => {
                this.first_byte_by = None;
                this.unanswered_since.get_or_insert_with(Instant::now);
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    /// How long nothing of the answer may be taken. The task is woken when the server begins to stop.
    fn take_within(&mut self, context: &mut Context<'_>) -> Duration {
        let is_stopping = self.stopping.is_terminated() || self.stopping.poll_unpin(context).is_ready();
        if is_stopping { self.bounds.take_within.min(TAKE_WHEN_STOPPING) } else { self.bounds.take_within }
    }

    fn written(
        &mut self,
        wrote: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Pending => {
                let since = *self.stuck_since.get_or_insert_with(Instant::now);
                let within = self.take_within(context);
                if self.writing.has_rung(since.checked_add(within), context) {
                    return Poll::Ready(Err(too_slow("the client takes nothing of its answer")));
                }
                Poll::Pending
            }
            ready => {
                (self.unanswered_since, self.stuck_since) = (None, None);
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.written(wrote, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.written(wrote, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::{sleep, timeout};

    use super::*;

    impl Readable for DuplexStream {
        /// It cannot tell: to read it says so.
        fn poll_readable(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    const BOUNDS: Bounds = Bounds {
        first_byte_within: None,
        answer_within: Duration::from_millis(600),
        take_within: Duration::from_secs(2),
    };

    /// The signal of a server that does not stop.
    fn running() -> Stopping {
        pending().boxed().shared()
    }

    fn connection() -> (DuplexStream, Patient<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, Patient::new(server, BOUNDS, (Turns::default(), running()), None))
    }

    #[tokio::test]
    async fn whoever_begins_and_does_not_end_is_cut() {
        let (mut client, mut server) = connection();
        let mut buffer = [0; 64];
        let silence = timeout(BOUNDS.answer_within * 2, server.read(&mut buffer)).await;
        assert!(silence.is_err(), "silence is the keep-alive's affair");

        let dripping = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let begin = Instant::now();
        let cut = loop {
            match server.read(&mut buffer).await {
                Ok(read) => assert!(read > 0),
                Err(error) => break error,
            }
        };
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= BOUNDS.answer_within, "{:?}", begin.elapsed());
        drop(server);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_never_sends_a_byte_is_cut() {
        let bounds = Bounds { first_byte_within: Some(Duration::from_millis(300)), ..BOUNDS };
        let (_client, server) = duplex(64);
        let mut server = Patient::new(server, bounds, (Turns::default(), running()), None);
        let begin = Instant::now();
        let cut = server.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(300));

        let (mut client, server) = duplex(64);
        let mut server = Patient::new(server, bounds, (Turns::default(), running()), None);
        client.write_all(b"ask").await.unwrap();
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 3);
        server.write_all(b"answer").await.unwrap();
        let idle = timeout(Duration::from_secs(1), server.read(&mut [0; 64])).await;
        assert!(idle.is_err(), "an idle connection that has been used is bounded by the keep-alive timeout");
    }

    #[tokio::test]
    async fn bytes_that_wait_for_their_turn_are_not_late() {
        let bounds = Bounds { first_byte_within: Some(Duration::from_millis(1)), ..BOUNDS };
        let (listener, turns) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Turns::of(0));
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"ask").await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        server.readable().await.unwrap();
        let mut server = Patient::new(server, bounds, (turns, running()), None);
        let worker = LocalSet::new();
        let waiting = worker.run_until(timeout(Duration::from_millis(200), server.read(&mut [0; 64]))).await;
        assert!(waiting.is_err(), "there is no turn for it, and no cut: {waiting:?}");
    }

    #[tokio::test]
    async fn who_is_answered_may_ask_for_ever() {
        let (mut client, mut server) = connection();
        let mut buffer = [0; 64];
        let begin = Instant::now();
        while begin.elapsed() < BOUNDS.answer_within * 3 {
            client.write_all(b"ask").await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap(), 3);
            server.write_all(b"answer").await.unwrap();
            assert_eq!(client.read(&mut buffer).await.unwrap(), 6);
            let next = timeout(Duration::from_millis(50), server.read(&mut buffer)).await;
            assert!(next.is_err(), "it waits for the next");
        }
    }

    #[tokio::test]
    async fn whoever_takes_nothing_is_cut_and_who_takes_a_little_is_not() {
        let (mut client, mut server) = connection();
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 16];
            for _ in 0..40 {
                sleep(Duration::from_millis(100)).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
            client
        });
        server.write_all(&[b'x'; 640]).await.unwrap();
        let _client = reading.await.unwrap();
        let begin = Instant::now();
        let cut = server.write_all(&[b'x'; 320]).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= BOUNDS.take_within, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_sooner_when_the_server_stops() {
        let bounds = Bounds { take_within: Duration::from_secs(600), ..BOUNDS };
        let (stop, stopped) = oneshot::channel();
        let stopping = stopped.map(|_: Result<(), _>| ()).boxed().shared();
        let (_client, server) = duplex(64);
        let mut server = Patient::new(server, bounds, (Turns::default(), stopping), None);
        let worker = LocalSet::new();
        let cut = worker.run_until(async {
            let writing = spawn_local(async move { server.write_all(&[b'x'; 320]).await });
            sleep(Duration::from_millis(100)).await;
            assert!(!writing.is_finished());
            stop.send(()).unwrap();
            timeout(Duration::from_secs(60), writing).await.expect("long before ten minutes")
        });
        let begin = Instant::now();
        assert_eq!(cut.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= TAKE_WHEN_STOPPING - Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    /// Answers `asks` requests of a byte each.
    async fn answer(mut server: Patient<TcpStream>, asks: usize) {
        for _ in 0..asks {
            let byte = server.read_u8().await.unwrap();
            server.write_u8(byte).await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_turn_is_read_and_answered() {
        const ASKS: usize = 5;
        let crowd = LocalSet::new();
        let all = crowd.run_until(async {
            let (listener, turns) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Turns::of(2));
            let mut clients = Vec::new();
            for _ in 0..30 {
                let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                spawn_local(answer(Patient::new(server, BOUNDS, (turns.clone(), running()), None), ASKS));
                clients.push(spawn_local(ask(client, ASKS)));
            }
            for client in clients {
                client.await.unwrap();
            }
        });
        timeout(Duration::from_secs(30), all).await.expect("nobody waits for ever");
    }

    async fn ask(mut client: TcpStream, asks: usize) {
        for byte in (0..=u8::MAX).take(asks) {
            client.write_u8(byte).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), byte);
        }
    }
}
