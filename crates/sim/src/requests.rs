//! Requests as the transport serves them: the key first, then the gate, then the use case; and what their answers mean.

use frontrow_app::{
    AdminError, Caller, CancelError, ChargeError, ChargeReceipt, ConcertError, EnterError, Entered, Failure,
    GateError, Held, Keyed, LookUpError, PayError, PayReceipt, QueuePlace, ReplayError, Reply, ReserveError,
    ReserveRequest, UseCases,
};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, KeyedRequest};
use frontrow_domain::ports::Role;
use frontrow_domain::queue::RoomPolicyPatch;
use frontrow_domain::seat::SeatStatus;
use frontrow_domain::{ConcertId, Money, PerformanceDateId, ReservationId, RoomId, SeatId, UserId};
use uuid::Uuid;

use crate::monitor::Verdict;

/// Who changes rooms, and admits.
pub(crate) const OPERATOR: UserId = UserId::new(Uuid::from_u128(0xad));

/// The key of a request, if it has one.
pub(crate) fn key(user_id: UserId, request: u64) -> Option<KeyedRequest> {
    let key = IdempotencyKey::new(&format!("request {request}")).ok()?;
    let mut fingerprint = [0; 32];
    fingerprint.iter_mut().zip(request.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    Some(KeyedRequest { user_id, key, fingerprint: Fingerprint(fingerprint) })
}

/// An answer's bytes: what it names, as the audit looks for it in the server's answers, and how much.
fn answer(field: &str, id: impl ToString, amount: Money) -> Answer {
    let body = format!("\"{field}\":\"{}\" {amount}", id.to_string());
    Answer { status: 200, content_type: "text/plain".to_owned(), body: body.into_bytes() }
}

fn done<T>(answer: T) -> Verdict<T> {
    Verdict::Done { answer, replayed: false }
}

fn replied(reply: Reply) -> Verdict<Vec<u8>> {
    Verdict::Done { answer: reply.answer.body, replayed: reply.replayed }
}

fn failed<T>(failure: Failure) -> Verdict<T> {
    match failure {
        Failure::Unavailable(_) => Verdict::NotNow,
        Failure::OutcomeUnknown(_) => Verdict::Unknown,
        Failure::Internal(text) => Verdict::Internal(text),
    }
}

fn shut<T>(error: GateError) -> Verdict<T> {
    match error {
        GateError::Failure(failure) => failed(failure),
        refused => Verdict::Refused(refused.to_string()),
    }
}

/// The answer that this key has already, if it has one.
async fn replay(use_cases: &UseCases, keyed: Option<&KeyedRequest>) -> Option<Verdict<Vec<u8>>> {
    match use_cases.idempotency.replay(keyed?).await {
        Ok(reply) => reply.map(replied),
        Err(ReplayError::Failure(failure)) => Some(failed(failure)),
        Err(ReplayError::KeyReused(reused)) => Some(Verdict::Internal(reused.to_string())),
    }
}

/// Done without a place where the concert is sold out.
pub(crate) async fn enter(
    use_cases: UseCases,
    user_id: UserId,
    concert: ConcertId,
) -> Verdict<Option<Entered>> {
    match use_cases.queue.enter(user_id, Some(concert)).await {
        Ok(entered) => done(Some(entered)),
        Err(EnterError::SoldOut) => done(None),
        Err(EnterError::Failure(failure)) => failed(failure),
        Err(EnterError::Refused(refusal)) => Verdict::Refused(refusal.to_string()),
        Err(error @ EnterError::ConcertNotFound) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn look_up(use_cases: UseCases, user_id: UserId, token: String) -> Verdict<QueuePlace> {
    match use_cases.queue.look_up(user_id, Some(&token)).await {
        Ok(place) => done(place),
        Err(LookUpError::Failure(failure)) => failed(failure),
        Err(error) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn leave(use_cases: UseCases, user_id: UserId, token: String) -> Verdict<Vec<u8>> {
    match use_cases.queue.leave(user_id, Some(&token)).await {
        Ok(()) => done(Vec::new()),
        Err(LookUpError::Failure(failure)) => failed(failure),
        Err(error) => Verdict::Internal(error.to_string()),
    }
}

/// The seats that are shown as free.
pub(crate) async fn look(
    use_cases: UseCases,
    user_id: UserId,
    token: String,
    (concert, date): (ConcertId, PerformanceDateId),
) -> Verdict<Vec<SeatId>> {
    let pass = match use_cases.gate.check_to_look(user_id, Some(&token)).await {
        Ok(pass) => pass,
        Err(error) => return shut(error),
    };
    let map = match use_cases.concerts.seat_map(&pass, concert, date).await {
        Ok(map) => map,
        Err(ConcertError::Failure(failure)) => return failed(failure),
        Err(error) => return Verdict::Internal(error.to_string()),
    };
    let Some(shown) = map.shown(use_cases.concerts.now()) else { return Verdict::NotNow };
    let seats = (0..shown.layout.len()).filter_map(|at| shown.layout.spot(at)).zip(shown.statuses);
    let free = seats.filter(|(_, status)| *status == SeatStatus::Available);
    done(free.map(|(spot, _)| spot.id).collect())
}

pub(crate) async fn reserve(
    use_cases: UseCases,
    token: String,
    keyed: Option<KeyedRequest>,
    user_id: UserId,
    request: ReserveRequest,
) -> Verdict<Vec<u8>> {
    if let Some(replayed) = replay(&use_cases, keyed.as_ref()).await {
        return replayed;
    }
    let pass = match use_cases.gate.check(user_id, Some(&token)).await {
        Ok(pass) => pass,
        Err(error) => return shut(error),
    };
    let encode = |held: &Held| answer("reservationId", held.reservation.id, held.reservation.total_amount);
    let reserved =
        use_cases.reservations.reserve(pass, &request, Keyed { request: keyed, encode: &encode }).await;
    match reserved {
        Ok(reply) => replied(reply),
        Err(ReserveError::Failure(failure)) => failed(failure),
        Err(ReserveError::Gate(error)) => shut(error),
        Err(ReserveError::Conflict) => Verdict::NotNow,
        Err(
            error @ (ReserveError::TooManySeats { .. }
            | ReserveError::SalePaused(_)
            | ReserveError::SeatLimitExceeded { .. }
            | ReserveError::SeatNotAvailable(_)),
        ) => Verdict::Refused(error.to_string()),
        Err(error) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn cancel(use_cases: UseCases, user_id: UserId, id: ReservationId) -> Verdict<Vec<u8>> {
    match use_cases.reservations.cancel(user_id, id).await {
        Ok(()) => done(Vec::new()),
        Err(CancelError::Failure(failure)) => failed(failure),
        Err(CancelError::Conflict) => Verdict::NotNow,
        Err(CancelError::Reservation(error)) => Verdict::Refused(error.to_string()),
        Err(error @ CancelError::NotFound) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn charge(
    use_cases: UseCases,
    keyed: Option<KeyedRequest>,
    user_id: UserId,
    amount: Money,
) -> Verdict<Vec<u8>> {
    if let Some(replayed) = replay(&use_cases, keyed.as_ref()).await {
        return replayed;
    }
    let encode = |receipt: &ChargeReceipt| answer("entryId", receipt.entry.id, receipt.entry.amount);
    let permit = match use_cases.accounts.permit_charge(Caller { user_id, role: Role::User }, user_id) {
        Ok(permit) => permit,
        Err(refusal) => return Verdict::Internal(refusal.to_string()),
    };
    match use_cases.accounts.charge(permit, amount, Keyed { request: keyed, encode: &encode }).await {
        Ok(reply) => replied(reply),
        Err(ChargeError::Failure(failure)) => failed(failure),
        Err(ChargeError::Conflict) => Verdict::NotNow,
        Err(error) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn pay(
    use_cases: UseCases,
    keyed: Option<KeyedRequest>,
    user_id: UserId,
    id: ReservationId,
) -> Verdict<Vec<u8>> {
    if let Some(replayed) = replay(&use_cases, keyed.as_ref()).await {
        return replayed;
    }
    let encode = |receipt: &PayReceipt| answer("paymentId", receipt.payment.id, receipt.payment.amount);
    match use_cases.payment.pay(user_id, id, Keyed { request: keyed, encode: &encode }).await {
        Ok(reply) => replied(reply),
        Err(PayError::Failure(failure)) => failed(failure),
        Err(PayError::Conflict) => Verdict::NotNow,
        Err(error @ (PayError::Reservation(_) | PayError::InsufficientBalance { .. })) => {
            Verdict::Refused(error.to_string())
        }
        Err(error) => Verdict::Internal(error.to_string()),
    }
}

pub(crate) async fn change_room(use_cases: UseCases, id: RoomId, patch: RoomPolicyPatch) -> Verdict<Vec<u8>> {
    administered(use_cases.admin.change_room(OPERATOR, id, &patch).await.map(drop))
}

pub(crate) async fn admit(use_cases: UseCases, id: RoomId, count: u32) -> Verdict<Vec<u8>> {
    administered(use_cases.admin.admit(OPERATOR, id, count).await.map(drop))
}

fn administered(result: Result<(), AdminError>) -> Verdict<Vec<u8>> {
    match result {
        Ok(()) => done(Vec::new()),
        Err(AdminError::Failure(failure)) => failed(failure),
        Err(AdminError::Conflict) => Verdict::NotNow,
        Err(AdminError::SalePaused(paused)) => Verdict::Refused(paused.to_string()),
        Err(error) => Verdict::Internal(error.to_string()),
    }
}
