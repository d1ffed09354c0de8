//! The waiting room: a line of queue tokens, and the policy that admits them (seed: 유저 대기열 토큰 기능).

mod line;
mod policy;
mod polling;
mod room;
mod tickets;
mod token;

pub use line::{Departure, LineState, LineView, PlaceInLine};
pub use policy::{Entrance, InvalidPolicy, RoomMode, RoomPolicy, RoomPolicyPatch, RoomRefusal};
pub use polling::{RAREST_POLL_SECONDS, SOONEST_POLL_SECONDS, poll_after_seconds};
pub use room::{CLOCK_SLACK, DEFAULT_ROOM_ID, Room, RoomWithWaiters, estimated_wait_seconds, sales_opening};
pub use token::{QueueToken, QueueTokenError, QueueTokenState, QueueTokenStatus, SalePaused, TicketNumber};
