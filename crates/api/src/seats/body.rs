//! A body that many answers share, in parts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::HttpResponseBuilder;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

/// A body of so many bytes is sent as one; a connection never buffers more than about this.
const ONE_PART_BYTES: usize = 256 * 1024;

/// The parts of a body. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    parts: Arc<[Bytes]>,
    bytes: usize,
}

impl Parts {
    /// Puts parts one behind the other. Small ones become one.
    pub(crate) fn new(parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        if bytes > ONE_PART_BYTES {
            return Self { parts: parts.into(), bytes };
        }
        let mut joined = Vec::with_capacity(bytes);
        parts.iter().for_each(|part| joined.extend_from_slice(part));
        Self { parts: [Bytes::from(joined)].into(), bytes }
    }

    /// How long the body is.
    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }

    /// The same body with another beginning, in place of its first `cut` bytes. They are within the first part.
    pub(crate) fn with_beginning(&self, beginning: Bytes, cut: usize) -> Self {
        let first = self.parts.first().map(|first| first.slice(cut.min(first.len())..));
        let rest = self.parts.iter().skip(1).cloned();
        Self::new([beginning].into_iter().chain(first).chain(rest).collect())
    }

    /// Answers with the body.
    pub(crate) fn send(self, mut response: HttpResponseBuilder) -> HttpResponse {
        match &*self.parts {
            [only] => response.body(only.clone()),
            _ => response.body(Sending { parts: self, next: 0 }),
        }
    }

    /// The whole body.
    #[cfg(test)]
    pub(crate) fn joined(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

/// Sends one part after the other, so that a connection buffers a few of them and not all.
struct Sending {
    parts: Parts,
    next: usize,
}

impl MessageBody for Sending {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(u64::try_from(self.parts.bytes).unwrap_or(u64::MAX))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let part = self.parts.parts.get(self.next).cloned();
        self.next = self.next.saturating_add(1);
        Poll::Ready(part.map(Ok))
    }
}
