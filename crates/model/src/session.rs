//! Guest sessions.

use crate::{Answer, Model, Name, Refusal, SECOND, Time};

/// How long a guest is known.
const SESSION: Time = 24 * 60 * 60 * SECOND;

impl Model {
    pub(crate) fn open_session(&mut self, call: Name) -> Answer {
        Answer::SessionOpened { session: call, until: self.begin_session(call, call) }
    }

    pub(crate) fn use_session(&self, session: Name) -> Result<Answer, Refusal> {
        self.guest_of(session).map(Answer::Caller)
    }

    /// The same guest, by a new access token; the one before stays as it was.
    pub(crate) fn renew_session(&mut self, call: Name, session: Name) -> Result<Answer, Refusal> {
        let guest = self.guest_of(session)?;
        Ok(Answer::SessionRenewed { guest, until: self.begin_session(call, guest) })
    }

    /// The end is a whole second.
    fn begin_session(&mut self, session: Name, guest: Name) -> Time {
        let end = self.now + SESSION;
        let until = end - end.rem_euclid(SECOND);
        self.sessions.insert(session, (guest, until));
        until
    }

    /// A guest is called by the session that made it.
    fn guest_of(&self, session: Name) -> Result<Name, Refusal> {
        let known = self.sessions.get(&session).filter(|(_, until)| self.now < *until);
        known.map(|(guest, _)| *guest).ok_or(Refusal::Unauthenticated)
    }

    /// Every session that was opened, over or not.
    pub fn sessions(&self) -> impl Iterator<Item = Name> {
        self.sessions.keys().copied()
    }
}
