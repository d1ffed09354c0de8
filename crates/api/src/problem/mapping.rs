//! Which refusal of a use case has which code.

use std::error::Error;

use frontrow_app::{
    AdminError, CancelError, ChargeError, ConcertError, EnterError, Failure, GateError, LookUpError,
    PayError, ReadReservationError, RenewError, ReplayError, ReserveError, Unauthenticated, WrongRoom,
};
use frontrow_domain::SeatId;
use frontrow_domain::account::ChargingRefusal;
use frontrow_domain::concert::InvalidSeatPlan;
use frontrow_domain::idempotency::KeyReused;
use frontrow_domain::ports::NoIssuer;
use frontrow_domain::queue::{InvalidPolicy, RoomRefusal};
use frontrow_domain::reservation::ReservationError;
use serde_json::Value;

use actix_web::http::StatusCode;

use super::{Code, Problem};

/// After how many seconds to try again when storage is away.
const STORAGE_RETRY_SECONDS: u64 = 1;
/// After how many seconds to try again when a room takes no newcomers.
const ROOM_RETRY_SECONDS: u64 = 30;

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(_) => {
                tracing::warn!(error = %causes(&failure), "storage is unavailable");
                let detail = "Nothing was changed; the same request can be sent again.";
                Self::new(Code::Unavailable, detail).with_retry_after(STORAGE_RETRY_SECONDS)
            }
            Failure::OutcomeUnknown(_) => {
                tracing::warn!(error = %causes(&failure), "the outcome of a commit is unknown");
                let detail = "It is unknown whether the request took effect. With an Idempotency-Key it can be sent again.";
                Self::new(Code::Unavailable, detail)
                    .with("outcome", "unknown")
                    .with_retry_after(STORAGE_RETRY_SECONDS)
            }
            Failure::Internal(_) => Self::internal(failure),
        }
    }
}

/// An error and what caused it, in one line.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

/// A refusal whose own words are good for the client.
fn said(code: Code, error: &dyn Error) -> Problem {
    Problem::new(code, error.to_string())
}

fn with_seats(problem: Problem, ids: &[SeatId]) -> Problem {
    problem.with("seatIds", ids.iter().map(|id| Value::String(id.to_string())).collect::<Vec<_>>())
}

impl From<Unauthenticated> for Problem {
    fn from(error: Unauthenticated) -> Self {
        said(Code::Unauthenticated, &error)
    }
}

impl From<NoIssuer> for Problem {
    fn from(error: NoIssuer) -> Self {
        said(Code::NotFound, &error)
    }
}

impl From<RenewError> for Problem {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::NoIssuer(no_issuer) => no_issuer.into(),
            RenewError::HasRole => said(Code::Forbidden, &error),
        }
    }
}

impl From<GateError> for Problem {
    fn from(error: GateError) -> Self {
        let code = match error {
            GateError::Missing => Code::WaitTokenMissing,
            GateError::Invalid | GateError::Gone => Code::WaitTokenInvalid,
            GateError::NotActive => Code::WaitTokenNotActive,
            GateError::Expired => Code::WaitTokenExpired,
            GateError::Failure(failure) => return failure.into(),
        };
        said(code, &error).redirected()
    }
}

impl From<WrongRoom> for Problem {
    fn from(error: WrongRoom) -> Self {
        said(Code::WaitTokenInvalid, &error).redirected()
    }
}

/// Where the waiting room itself is asked, there is nowhere to send anybody: 401.
impl From<LookUpError> for Problem {
    fn from(error: LookUpError) -> Self {
        let code = match error {
            LookUpError::Missing => Code::WaitTokenMissing,
            LookUpError::Invalid | LookUpError::Gone => Code::WaitTokenInvalid,
            LookUpError::Failure(failure) => return failure.into(),
        };
        said(code, &error).with_status(StatusCode::UNAUTHORIZED)
    }
}

impl From<EnterError> for Problem {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::ConcertNotFound => said(Code::ConcertNotFound, &error),
            EnterError::SoldOut => said(Code::SoldOut, &error),
            EnterError::Refused(refusal) => {
                let code = match refusal {
                    RoomRefusal::Closed => Code::RoomClosed,
                    RoomRefusal::Full => Code::RoomFull,
                };
                said(code, &refusal).with_retry_after(ROOM_RETRY_SECONDS)
            }
            EnterError::Failure(failure) => failure.into(),
        }
    }
}

impl From<ConcertError> for Problem {
    fn from(error: ConcertError) -> Self {
        match error {
            ConcertError::ConcertNotFound => said(Code::ConcertNotFound, &error),
            ConcertError::PerformanceDateNotFound => said(Code::PerformanceDateNotFound, &error),
            ConcertError::WrongRoom(wrong) => wrong.into(),
            ConcertError::Failure(failure) => failure.into(),
        }
    }
}

impl From<ReserveError> for Problem {
    fn from(error: ReserveError) -> Self {
        let code = match error {
            ReserveError::Gate(refusal) => return refusal.into(),
            ReserveError::WrongRoom(wrong) => return wrong.into(),
            ReserveError::InvalidHold(_) | ReserveError::TooManySeats { .. } => {
                return Self::invalid("seatIds", error);
            }
            ReserveError::SeatOfAnotherDate(ref ids) => {
                return with_seats(Self::invalid("seatIds", &error), ids);
            }
            ReserveError::SeatNotFound(ref ids) => return with_seats(said(Code::SeatNotFound, &error), ids),
            ReserveError::SeatNotAvailable(ref ids) => {
                return with_seats(said(Code::SeatNotAvailable, &error), ids);
            }
            ReserveError::KeyReused(reused) => return reused.into(),
            ReserveError::Failure(failure) => return failure.into(),
            ReserveError::PerformanceDateNotFound => Code::PerformanceDateNotFound,
            ReserveError::SalePaused(_) => Code::SalePaused,
            ReserveError::NotOnSale(_) => Code::NotOnSale,
            ReserveError::SeatLimitExceeded { .. } => Code::SeatLimitExceeded,
            ReserveError::Conflict => Code::Conflict,
        };
        said(code, &error)
    }
}

impl From<ReservationError> for Problem {
    fn from(error: ReservationError) -> Self {
        let code = match error {
            ReservationError::Expired => Code::ReservationExpired,
            ReservationError::Cancelled => Code::ReservationCancelled,
            ReservationError::AlreadyPaid => Code::AlreadyPaid,
            ReservationError::StillHeld => return Self::internal(error),
        };
        said(code, &error)
    }
}

impl From<ReadReservationError> for Problem {
    fn from(error: ReadReservationError) -> Self {
        match error {
            ReadReservationError::NotFound => said(Code::ReservationNotFound, &error),
            ReadReservationError::Failure(failure) => failure.into(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NotFound => said(Code::ReservationNotFound, &error),
            CancelError::Reservation(refusal) => refusal.into(),
            CancelError::Conflict => said(Code::Conflict, &error),
            CancelError::Failure(failure) => failure.into(),
        }
    }
}

impl From<ChargingRefusal> for Problem {
    fn from(error: ChargingRefusal) -> Self {
        match error {
            ChargingRefusal::NotTheOwner => said(Code::NotYourResource, &error),
            ChargingRefusal::NotACashier => said(Code::Forbidden, &error),
        }
    }
}

impl From<ChargeError> for Problem {
    fn from(error: ChargeError) -> Self {
        match error {
            ChargeError::InvalidAmount(refusal) => said(Code::InvalidAmount, &refusal),
            ChargeError::Conflict => said(Code::AccountConflict, &error),
            ChargeError::KeyReused(reused) => reused.into(),
            ChargeError::Failure(failure) => failure.into(),
        }
    }
}

impl From<PayError> for Problem {
    fn from(error: PayError) -> Self {
        match error {
            PayError::ReservationNotFound => said(Code::ReservationNotFound, &error),
            PayError::Reservation(refusal) => refusal.into(),
            PayError::InsufficientBalance { required, balance } => said(Code::InsufficientBalance, &error)
                .with("required", required.minor_units())
                .with("balance", balance.minor_units()),
            PayError::Conflict => said(Code::Conflict, &error),
            PayError::KeyReused(reused) => reused.into(),
            PayError::Failure(failure) => failure.into(),
        }
    }
}

impl From<KeyReused> for Problem {
    fn from(error: KeyReused) -> Self {
        said(Code::IdempotencyKeyReused, &error)
    }
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::KeyReused(reused) => reused.into(),
            ReplayError::Failure(failure) => failure.into(),
        }
    }
}

impl From<InvalidPolicy> for Problem {
    fn from(error: InvalidPolicy) -> Self {
        let InvalidPolicy { field, min, max } = error;
        Self::invalid(field, format_args!("must be from {min} to {max}"))
    }
}

impl From<InvalidSeatPlan> for Problem {
    fn from(error: InvalidSeatPlan) -> Self {
        Self::invalid("sections", error)
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::ConcertNotFound => said(Code::ConcertNotFound, &error),
            AdminError::PerformanceDateNotFound => said(Code::PerformanceDateNotFound, &error),
            AdminError::RoomNotFound => said(Code::NotFound, &error),
            AdminError::InvalidPolicy(invalid) => invalid.into(),
            AdminError::SalePaused(paused) => said(Code::SalePaused, &paused),
            AdminError::NeverOnSale(never) => Self::invalid("onSaleAt", never),
            AdminError::Conflict => said(Code::Conflict, &error),
            AdminError::Failure(failure) => failure.into(),
        }
    }
}
