//! A wire to a TCP server that can be cut, frozen and slowed down. It reads PostgreSQL's protocol, without TLS, so far that
//! it can be cut at a COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What happens at the next COMMIT that passes. The connection is closed then, unless it is stranded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server does it, and its answer is lost.
    Answer,
    /// It never reaches the server.
    Commit,
    /// The server does it, its answer is lost, and from then on nobody reaches the server, until [`Wire::join`].
    AnswerAndAll,
    /// It never reaches the server, and nothing is closed: see [`Wire::strand`].
    StrandedCommit,
    /// The server does it, and its answer and all that comes later is kept back: see [`Wire::strand`].
    StrandedAnswer,
}

/// How the wire is.
#[derive(Debug, Default)]
struct State {
    next: Option<Cut>,
    apart: bool,
    frozen: bool,
    /// How often all connections were stranded: those that were made before the last time are.
    stranded: usize,
    delay: Duration,
    /// Both ends of every connection that was made.
    open: Vec<[TcpStream; 2]>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    cuts: AtomicUsize,
}

/// A wire. It ends with the test's process.
#[derive(Debug, Clone)]
pub struct Wire {
    server: String,
    address: String,
    shared: Arc<Shared>,
}

impl Wire {
    /// A wire to a server's `host:port`.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let wire = Self { server: server.to_owned(), address, shared: Arc::default() };
        let accepting = wire.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.carry(client);
            }
        });
        wire
    }

    /// A wire to the server of a `postgres://` URL, and that URL with the near end of the wire instead.
    ///
    /// # Panics
    /// When the URL names no user or no database, or there is no free port.
    #[must_use]
    pub fn to_database(url: &str) -> (Self, String) {
        let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).expect("a host");
        let wire = Self::to(server);
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}sslmode=disable", url.replace(server, &wire.address));
        (wire, url)
    }

    /// Cuts it at the next COMMIT.
    pub fn cut_at_commit(&self, cut: Cut) {
        self.state().next = Some(cut);
    }

    /// Whether no COMMIT has passed since [`Wire::cut_at_commit`].
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.state().next.is_some()
    }

    /// How often it was cut at a COMMIT.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Closes every connection; new ones are carried.
    pub fn cut(&self) {
        close(&mut self.state());
    }

    /// Closes every connection, and every new one at once, until [`Wire::join`].
    pub fn part(&self) {
        let mut state = self.state();
        state.apart = true;
        close(&mut state);
    }

    /// Carries new connections again.
    pub fn join(&self) {
        self.state().apart = false;
    }

    /// Carries nothing, and closes nothing, until [`Wire::thaw`]: as if the server had stopped in the middle of its work.
    pub fn freeze(&self) {
        self.state().frozen = true;
    }

    /// Carries what has gathered.
    pub fn thaw(&self) {
        self.state().frozen = false;
        self.shared.changed.notify_all();
    }

    /// Carries nothing any more on the connections that are open, and closes none of them, not even when an end does. New
    /// ones are carried: as if another machine had taken over the address of one that is gone.
    pub fn strand(&self) {
        self.state().stranded += 1;
    }

    /// Keeps everything back for so long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nobody fails while holding it")
    }

    fn carry(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.server) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let end = |stream: &TcpStream| stream.try_clone().expect("another handle of a socket");
        let stranded = {
            let mut state = self.state();
            if state.apart {
                return;
            }
            state.open.push([end(&client), end(&server)]);
            state.stranded
        };
        let cut = Arc::new(Mutex::new(None));
        let (there, back, cut_back) = (self.clone(), self.clone(), cut.clone());
        let (from_server, to_client) = (end(&server), end(&client));
        thread::spawn(move || there.carry_requests(client, server, &cut, stranded));
        thread::spawn(move || back.carry_answers(from_server, to_client, &cut_back, stranded));
    }

    fn carry_requests(
        &self,
        mut client: TcpStream,
        mut server: TcpStream,
        cut: &Mutex<Option<Cut>>,
        stranded: usize,
    ) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            let request = &buffer[..length];
            self.pass(stranded);
            if request.windows(6).any(|text| text == b"COMMIT") {
                let next = self.state().next.take();
                *cut.lock().expect("nobody fails while holding it") = next;
                self.shared.cuts.fetch_add(usize::from(next.is_some()), Ordering::SeqCst);
                match next {
                    Some(Cut::Commit) => break,
                    Some(Cut::StrandedCommit) => {
                        self.strand();
                        break;
                    }
                    _ => {}
                }
            }
            if server.write_all(request).is_err() {
                break;
            }
        }
        self.pass(stranded);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    fn carry_answers(
        &self,
        mut server: TcpStream,
        mut client: TcpStream,
        cut: &Mutex<Option<Cut>>,
        stranded: usize,
    ) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            self.pass(stranded);
            let cut = *cut.lock().expect("nobody fails while holding it");
            match cut {
                Some(Cut::AnswerAndAll) => self.part(),
                Some(Cut::StrandedAnswer) => self.strand(),
                _ => {}
            }
            if cut.is_some() || client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        self.pass(stranded);
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }

    /// Waits as long as what passes is to be kept back, on a connection that is stranded once this has happened more often
    /// than `stranded` times.
    fn pass(&self, stranded: usize) {
        let delay = self.state().delay;
        thread::sleep(delay);
        let is_kept_back = |state: &mut State| state.frozen || state.stranded > stranded;
        let kept_back = self.shared.changed.wait_while(self.state(), is_kept_back);
        drop(kept_back.expect("nobody fails while holding it"));
    }
}

fn close(state: &mut State) {
    for end in state.open.drain(..).flatten() {
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A server that says back what it hears, and a client at the near end of the wire.
    fn wired() -> (Wire, impl Fn() -> TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::to(&listener.local_addr().unwrap().to_string());
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut back = client.try_clone().unwrap();
                    std::io::copy(&mut client, &mut back)
                });
            }
        });
        let address = wire.address.clone();
        (wire, move || {
            let client = TcpStream::connect(&address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client
        })
    }

    fn echo(client: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        client.write_all(text)?;
        let mut heard = vec![0; text.len()];
        client.read_exact(&mut heard)?;
        Ok(heard)
    }

    #[test]
    fn it_carries_until_it_is_cut() {
        let (wire, connect) = wired();
        let mut client = connect();
        assert_eq!(echo(&mut client, b"hello").unwrap(), b"hello");
        wire.cut();
        assert!(echo(&mut client, b"hello").is_err());
        assert_eq!(echo(&mut connect(), b"again").unwrap(), b"again");
        wire.part();
        assert!(echo(&mut connect(), b"hello").is_err());
        wire.join();
        assert_eq!(echo(&mut connect(), b"again").unwrap(), b"again");
    }

    #[test]
    fn a_commit_is_the_moment_of_a_cut() {
        let (wire, connect) = wired();
        for cut in [Cut::Answer, Cut::Commit, Cut::AnswerAndAll] {
            wire.cut_at_commit(cut);
            let mut client = connect();
            assert_eq!(echo(&mut client, b"SELECT 1").unwrap(), b"SELECT 1", "{cut:?}");
            assert!(wire.is_armed());
            assert!(echo(&mut client, b"COMMIT").is_err(), "{cut:?}");
            assert!(!wire.is_armed());
        }
        assert_eq!(wire.cuts(), 3);
        assert!(echo(&mut connect(), b"hello").is_err());
    }

    #[test]
    fn what_is_stranded_never_comes_and_what_is_new_does() {
        let (wire, connect) = wired();
        let mut client = connect();
        assert_eq!(echo(&mut client, b"hello").unwrap(), b"hello");
        wire.strand();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let kept_back = echo(&mut client, b"hello").unwrap_err().kind();
        assert!(matches!(kept_back, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kept_back:?}");
        assert_eq!(echo(&mut connect(), b"again").unwrap(), b"again");
    }

    #[test]
    fn what_is_frozen_comes_later() {
        let (wire, connect) = wired();
        let mut client = connect();
        wire.freeze();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let kept_back = echo(&mut client, b"hello").unwrap_err().kind();
        assert!(matches!(kept_back, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kept_back:?}");
        wire.thaw();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        wire.delay(Duration::from_millis(200));
        let sent = std::time::Instant::now();
        echo(&mut client, b"slow").unwrap();
        assert!(sent.elapsed() >= Duration::from_millis(400), "there and back");
    }
}
