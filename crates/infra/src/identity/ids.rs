//! Ids that no node gives twice.

use frontrow_domain::ports::IdGenerator;
use uuid::Uuid;

/// UUID v7: ordered by time, within one process strictly.
#[derive(Debug, Clone, Copy, Default)]
pub struct UuidV7;

impl IdGenerator for UuidV7 {
    #[allow(clippy::disallowed_methods, reason = "this is the generator that everything else asks")]
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
