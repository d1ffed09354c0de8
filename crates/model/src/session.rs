//! Guest sessions.

use crate::{Answer, Model, Name, Refusal, SECOND, Time};

/// How long a guest is known.
const SESSION: Time = 24 * 60 * 60 * SECOND;

impl Model {
    /// The end is a whole second.
    pub(crate) fn open_session(&mut self, call: Name) -> Answer {
        let end = self.now + SESSION;
        let until = end - end.rem_euclid(SECOND);
        self.sessions.insert(call, until);
        Answer::SessionOpened { session: call, until }
    }

    pub(crate) fn use_session(&self, session: Name) -> Result<Answer, Refusal> {
        let known = self.sessions.get(&session).is_some_and(|until| self.now < *until);
        if known { Ok(Answer::Caller(session)) } else { Err(Refusal::Unauthenticated) }
    }

    /// Every session that was opened, over or not.
    pub fn sessions(&self) -> impl Iterator<Item = Name> {
        self.sessions.keys().copied()
    }
}
