//! A type for every kind of id, so that one can never be passed for another (ADR 0005).

use std::fmt;

use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Names the thing with this UUID.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself, for adapters.
            #[must_use]
            pub const fn get(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

ids! {
    /// A person, as the identity provider names it: the `sub` of an access token. Also names the account.
    UserId,
    /// A waiting line with a policy.
    RoomId,
    /// A place in a waiting line.
    QueueTokenId,
    /// A concert.
    ConcertId,
    /// One performance of a concert, with seats of its own.
    PerformanceDateId,
    /// A seat on one performance date.
    SeatId,
    /// Seats held for, or sold to, one user.
    ReservationId,
    /// A line of an account's history.
    EntryId,
    /// A payment of one reservation.
    PaymentId,
    /// The right to one seat, made by a payment.
    TicketId,
    /// A line of what operators did.
    AuditEntryId,
    /// One life of the stored data.
    IncarnationId,
    /// One run of a node: from its start to its end.
    NodeId,
}
