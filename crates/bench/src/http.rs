//! Just enough HTTP/1.1 for a load generator: prepared requests, and answers whose heads are read as far as needed.

use std::str;

use anyhow::{Context, Result, bail};

/// How much of a body is kept to show it when the answer was not expected.
const KEPT_BODY_BYTES: usize = 1_024;
/// A head longer than this is no answer of ours.
const MAX_HEAD_BYTES: usize = 64 * 1_024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A request as it goes over the wire. A body is JSON.
#[must_use]
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or(""));
    text.into_bytes()
}

/// One answer, read piece by piece. It is used again for the next one on the same connection.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    body_start: Vec<u8>,
    status: u16,
    body_bytes: u64,
    /// Body bytes still to come; `None` while the head is not complete.
    missing: Option<u64>,
}

impl Answer {
    /// Forgets the last answer.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.body_start.clear();
        self.missing = None;
    }

    /// Takes what was read; true when the answer is complete.
    ///
    /// # Errors
    /// Bytes that are no HTTP/1.1 answer with a known length, or that go on after its end.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool> {
        let Some(missing) = self.missing else { return self.feed_head(bytes) };
        self.feed_body(bytes, missing)
    }

    fn feed_head(&mut self, bytes: &[u8]) -> Result<bool> {
        let searched = self.head.len().saturating_sub(END_OF_HEAD.len() - 1);
        self.head.extend_from_slice(bytes);
        let unsearched = self.head.get(searched..).unwrap_or_default();
        let Some(end) = unsearched.windows(END_OF_HEAD.len()).position(|bytes| bytes == END_OF_HEAD) else {
            if self.head.len() > MAX_HEAD_BYTES {
                bail!("an answer whose head does not end");
            }
            return Ok(false);
        };
        let body = self.head.split_off(searched + end + END_OF_HEAD.len());
        self.status = self.read_status()?;
        self.body_bytes = self.read_length()?;
        self.feed_body(&body, self.body_bytes)
    }

    fn feed_body(&mut self, bytes: &[u8], missing: u64) -> Result<bool> {
        let room = KEPT_BODY_BYTES.saturating_sub(self.body_start.len());
        self.body_start.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        let read = u64::try_from(bytes.len())?;
        let left = missing.checked_sub(read).context("bytes after the end of an answer")?;
        self.missing = Some(left);
        Ok(left == 0)
    }

    fn read_status(&self) -> Result<u16> {
        let digits = self.head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).context("not an HTTP/1.1 answer")
    }

    fn read_length(&self) -> Result<u64> {
        if matches!(self.status, 204 | 304) {
            return Ok(0);
        }
        let length = self.header("content-length").context("an answer without Content-Length")?;
        length.parse().context("Content-Length is no number")
    }

    /// Whether the head is complete.
    pub(crate) const fn has_head(&self) -> bool {
        self.missing.is_some()
    }

    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// How long the body is.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The first occurrence of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        let mut values = lines.filter_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
        });
        values.next().and_then(|value| str::from_utf8(value).ok()).map(str::trim)
    }

    /// Status and the beginning of the body, for people.
    pub(crate) fn shown(&self) -> String {
        let head = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        format!("{}: {}", String::from_utf8_lossy(head), String::from_utf8_lossy(&self.body_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-LENGTH: 5\r\netag: \"a:1\"\r\n\r\nhello";

    fn whole(bytes: &[u8]) -> Result<(Answer, bool)> {
        let mut answer = Answer::default();
        let complete = answer.feed(bytes)?;
        Ok((answer, complete))
    }

    #[test]
    fn an_answer_may_come_in_any_two_pieces() {
        for split in 0..=OK.len() {
            let (first, second) = OK.split_at(split);
            let mut answer = Answer::default();
            let complete_early = answer.feed(first).unwrap();
            assert_eq!(complete_early, second.is_empty(), "split at {split}");
            if !complete_early {
                assert!(answer.feed(second).unwrap(), "split at {split}");
            }
            assert_eq!((answer.status(), answer.body_bytes()), (200, 5));
            assert_eq!(answer.header("etag"), Some("\"a:1\""));
            assert_eq!(answer.shown(), "HTTP/1.1 200 OK: hello");
        }
    }

    #[test]
    fn an_answer_may_come_byte_by_byte_and_is_used_again() {
        let mut answer = Answer::default();
        for _ in 0..2 {
            let complete: Vec<bool> = OK.iter().map(|byte| answer.feed(&[*byte]).unwrap()).collect();
            assert_eq!(complete.iter().filter(|complete| **complete).count(), 1);
            assert_eq!(complete.last(), Some(&true));
            assert_eq!(answer.body_start, b"hello");
            answer.clear();
        }
    }

    #[test]
    fn some_answers_have_no_body() {
        for head in ["HTTP/1.1 304 Not Modified\r\netag: \"b\"\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"] {
            assert!(whole(head.as_bytes()).unwrap().1, "{head}");
        }
        let (answer, complete) = whole(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!((answer.status(), complete), (201, true));
    }

    #[test]
    fn a_long_body_is_counted_and_not_kept() {
        let mut answer = Answer::default();
        assert!(!answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").unwrap());
        for piece in 0..100 {
            assert_eq!(answer.feed(&[b'x'; 1_000]).unwrap(), piece == 99);
        }
        assert_eq!((answer.body_bytes(), answer.body_start.len()), (100_000, KEPT_BODY_BYTES));
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(whole(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let bytes = request("POST", "/pay", &[("Authorization", "Bearer x")], Some("{}"));
        let expected = "POST /pay HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer x\r\n\
            Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(request("GET", "/", &[], None), b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n");
    }
}
