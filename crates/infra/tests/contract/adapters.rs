//! How each adapter is opened: on empty storage of its own, so that tests can run side by side.

use std::sync::Arc;

use frontrow_infra::{Memory, Storage};

use crate::fixture::Fixture;

pub(crate) async fn memory() -> Option<Fixture> {
    Some(Fixture::new(Storage::new(Arc::new(Memory::new())), ()))
}
