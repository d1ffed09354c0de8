//! The waiting room: a line of queue tokens, and the policy that admits them (seed: 유저 대기열 토큰 기능).

mod policy;
mod room;
mod token;

pub use policy::{Entrance, InvalidPolicy, RoomMode, RoomPolicy, RoomPolicyPatch, RoomRefusal};
pub use room::{DEFAULT_ROOM_ID, Room, estimated_wait_seconds};
pub use token::{QueueToken, QueueTokenError, QueueTokenState, QueueTokenStatus, TicketNumber};
