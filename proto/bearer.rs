//! The token that a caller shows with each call, as `authorization: Bearer …`, and the channel that does so.

use std::{fmt, sync::Arc};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// A channel whose calls show a token, if there is one.
pub type Link = InterceptedService<Channel, Bearer>;

/// What is sent as `authorization`. It never shows itself in a log.
pub type Authorization = MetadataValue<Ascii>;

/// Shows a token, asked for anew with each call, so that it can be replaced.
#[derive(Clone, Default)]
pub struct Bearer(Option<Arc<dyn Fn() -> Authorization + Send + Sync>>);

impl Bearer {
    /// No token.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What `current` says; see [`authorization`].
    pub fn new(current: impl Fn() -> Authorization + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(current)))
    }

    /// A channel that shows it.
    pub fn on(self, channel: Channel) -> Link {
        InterceptedService::new(channel, self)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(…)" } else { "Bearer(none)" })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(current) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, current());
        }
        Ok(request)
    }
}

/// A token as it is sent. None: it has bytes that are no visible ASCII, or none at all.
pub fn authorization(token: &str) -> Option<Authorization> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value: Authorization = format!("{SCHEME} {token}").parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token of an `authorization`; none if it is of another scheme.
pub fn token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

/// The key of the metadata.
pub const AUTHORIZATION: &str = "authorization";
const SCHEME: &str = "Bearer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_sent_and_shows_itself_nowhere() {
        let sent = authorization("s3cret").expect("visible");
        assert_eq!(token(sent.to_str().expect("ASCII")), Some("s3cret"));
        assert!(!format!("{sent:?}").contains("s3cret"));
        let mut bearer = Bearer::new(move || sent.clone());
        let request = bearer.call(Request::new(())).expect("never refused");
        assert!(!format!("{bearer:?} {request:?}").contains("s3cret"));
        assert_eq!(request.metadata().get(AUTHORIZATION).map(|value| value.as_bytes()), Some(&b"Bearer s3cret"[..]));
    }

    #[test]
    fn the_scheme_has_any_case_and_other_schemes_carry_no_token() {
        assert_eq!(token("bearer  a"), Some("a"));
        assert_eq!(token("BEARER a"), Some("a"));
        for other in ["", "a", "Bearer", "Bearer ", "Basic a", "Bearera"] {
            assert_eq!(token(other), None, "{other:?}");
        }
        for bad in ["", "a b", "a\n", "ä"] {
            assert!(authorization(bad).is_none(), "{bad:?}");
        }
    }
}
