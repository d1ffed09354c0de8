//! The seats of a date as they are sent. A picture of a map is drawn once for all who ask for it (ADR 0008).

mod album;
mod body;
mod delta;
mod picture;
mod unread;

pub(crate) use album::{Album, Albums, FEW_SEATS};
pub(crate) use body::Parts;
pub(crate) use delta::{Delta, OWN_DELTA_SEATS};
pub(crate) use picture::Picture;
pub(crate) use unread::{AnswersOf, UnreadAnswers};
