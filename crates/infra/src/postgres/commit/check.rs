//! The optimistic lock: every version a unit of work was decided on must still hold.

use frontrow_domain::unit_of_work::UnitOfWork;

use super::failure::Failure;
use super::lock::Locked;

/// Refuses with the first aggregate, by kind and key, that is not as expected.
pub(super) fn require_versions(work: &UnitOfWork, locked: &Locked) -> Result<(), Failure> {
    let expected = work.expected_versions();
    let lost = expected.into_iter().find(|(aggregate, version)| locked.version_of(*aggregate) != *version);
    lost.map_or(Ok(()), |(aggregate, _)| Err(Failure::conflict(aggregate)))
}
