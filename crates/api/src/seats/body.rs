//! A body that many answers share, in parts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::HttpResponseBuilder;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use super::unread::UnreadAnswer;

/// The most bytes of a part that is put together here. A connection copies one part at a time into its write buffer, so that
/// a client that does not read costs about this much.
const PART_BYTES: usize = 64 * 1024;
/// Bodies of up to so many bytes are put together from their parts: fewer, larger writes.
const JOINED_BYTES: usize = 256 * 1024;

/// The parts of a body. Cloning shares them.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    parts: Arc<[Bytes]>,
    bytes: usize,
}

/// The parts of a body that others may still hold.
pub(crate) struct WeakParts {
    parts: Weak<[Bytes]>,
    bytes: usize,
}

impl WeakParts {
    /// Whether anything holds the body.
    pub(crate) fn is_held(&self) -> bool {
        self.parts.strong_count() > 0
    }

    /// How long the body is.
    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }
}

impl Parts {
    /// Puts parts one behind the other. Small bodies are put together anew, in parts of an equal size.
    pub(crate) fn new(parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        let parts = match parts.as_slice() {
            [only] => cut(only),
            _ if bytes > JOINED_BYTES => parts,
            _ => cut(&Bytes::from(parts.concat())),
        };
        Self { parts: parts.into(), bytes }
    }

    /// A reference that does not keep the body alive.
    pub(crate) fn downgrade(&self) -> WeakParts {
        WeakParts { parts: Arc::downgrade(&self.parts), bytes: self.bytes }
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

    /// Answers with the body, which holds its share in the caller's count until it is dropped.
    pub(crate) fn send(
        self,
        mut response: HttpResponseBuilder,
        unread: Option<UnreadAnswer>,
    ) -> HttpResponse {
        match (&*self.parts, unread) {
            ([only], None) => response.body(only.clone()),
            (_, unread) => response.body(Sending { parts: self, next: 0, _unread: unread }),
        }
    }

    /// The whole body.
    #[cfg(test)]
    pub(crate) fn joined(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

/// Slices of a body, which share its memory.
fn cut(body: &Bytes) -> Vec<Bytes> {
    let starts = (0..body.len().max(1)).step_by(PART_BYTES);
    starts.map(|start| body.slice(start..start.saturating_add(PART_BYTES).min(body.len()))).collect()
}

/// Sends one part after the other, so that a connection buffers a few of them and not all.
struct Sending {
    parts: Parts,
    next: usize,
    _unread: Option<UnreadAnswer>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_sent_in_parts_that_share_its_memory() {
        for length in [0, 1, PART_BYTES, PART_BYTES + 1, 10 * PART_BYTES] {
            let whole = Bytes::from(vec![b'x'; length]);
            let body = Parts::new(vec![whole.clone()]);
            assert_eq!((body.len(), body.joined()), (length, whole.to_vec()));
            assert_eq!(body.parts.len(), length.div_ceil(PART_BYTES).max(1));
            let range = whole.as_ptr_range();
            let is_shared = |part: &Bytes| part.is_empty() || range.contains(&part.as_ptr());
            assert!(body.parts.iter().all(|part| part.len() <= PART_BYTES && is_shared(part)));
        }
    }

    #[test]
    fn a_body_of_many_small_parts_is_put_together_if_it_is_small() {
        let parts = |count: usize| Parts::new(vec![Bytes::from_static(&[b'x'; 1_000]); count]);
        assert_eq!((parts(200).parts.len(), parts(200).len()), (200_000_usize.div_ceil(PART_BYTES), 200_000));
        assert_eq!(parts(1_000).parts.len(), 1_000);
    }
}
