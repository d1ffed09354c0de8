//! Who is calling: the bearer token of a request.

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use frontrow_app::Caller;
use frontrow_domain::UserId;
use frontrow_domain::ports::Role;

use crate::problem::{Code, Problem};
use crate::state;

/// Finds out who calls, or refuses: 401.
pub(crate) fn authenticate(req: &HttpRequest) -> Result<Known, Problem> {
    let token = bearer_token(req.headers());
    Ok(Known(state(req)?.use_cases.sessions.caller(token)?))
}

/// The token of `Authorization: Bearer <token>`. Two such headers are nobody's.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION);
    let (Some(credentials), None) = (given.next(), given.next()) else { return None };
    let (scheme, token) = credentials.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller. Only routes behind [`authenticate`] have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known(Caller);

impl Known {
    /// The caller as use cases know it.
    pub(crate) fn caller(self) -> Caller {
        self.0
    }

    /// Whom this is.
    pub(crate) fn user_id(self) -> UserId {
        self.0.user_id
    }

    /// A caller acts only for itself.
    ///
    /// # Errors
    /// 403 unless `user_id` is the caller's.
    pub(crate) fn require_is(self, user_id: UserId) -> Result<(), Problem> {
        if self.0.user_id == user_id {
            Ok(())
        } else {
            Err(Problem::new(Code::NotYourResource, "The userId is not the one of the access token."))
        }
    }

    /// Operators only.
    ///
    /// # Errors
    /// 403 for anybody else.
    pub(crate) fn require_operator(self) -> Result<(), Problem> {
        match self.0.role {
            Role::Admin => Ok(()),
            Role::User | Role::Cashier => {
                Err(Problem::new(Code::Forbidden, "The access token does not have the role \"admin\"."))
            }
        }
    }
}

impl FromRequest for Known {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = req.extensions().get().copied();
        std::future::ready(
            known.ok_or_else(|| Problem::internal("a route asks for a caller it never looked for")),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{header_bytes, headers};

    #[test]
    fn the_scheme_has_no_case() {
        for given in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(bearer_token(&headers(AUTHORIZATION, &[given])), Some("abc"), "{given}");
        }
        for given in ["", "abc", "Basic abc", "Bearerabc"] {
            assert_eq!(bearer_token(&headers(AUTHORIZATION, &[given])), None, "{given}");
        }
        assert_eq!(bearer_token(&HeaderMap::new()), None);
        assert_eq!(bearer_token(&headers(AUTHORIZATION, &["Bearer abc", "Bearer abc"])), None);
    }

    proptest! {
        #[test]
        fn any_credentials_are_one_bearer_token_or_nobodys(
            bytes in header_bytes(),
            (scheme, token) in ("[Bb][Ee][Aa][Rr][Ee][Rr]|[A-Za-z]{1,8}", " {1,3}[!-~]{1,200}"),
        ) {
            let credentials = format!("{scheme}{token}");
            let [one, two, any] = [
                headers(AUTHORIZATION, &[&credentials]),
                headers(AUTHORIZATION, &[credentials.as_bytes(), &bytes]),
                headers(AUTHORIZATION, &[&bytes]),
            ];
            let is_bearer = scheme.to_lowercase() == "bearer";
            prop_assert_eq!(bearer_token(&one), is_bearer.then(|| token.trim()));
            prop_assert_eq!(bearer_token(&two), None);
            if let Some(token) = bearer_token(&any) {
                prop_assert!(bytes.to_ascii_lowercase().starts_with(b"bearer "));
                prop_assert!(bytes.trim_ascii_end().ends_with(token.as_bytes()) && token.is_ascii());
            }
        }
    }
}
