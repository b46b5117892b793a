//! The two questions that are asked of every call: who is it, and may they?
//!
//! The first is answered here, before the call's message is looked at ([`AccessLayer`]); who cannot be told is refused. Probes of
//! `grpc.health.v1` are let through: they come from machinery that knows no secrets, and learn none. The second is asked by the
//! handlers, who know what a call is about, of the [`Rights`] that the call came with.
//!
//! A token counts for more than a certificate, as it speaks for the call and not for the connection; and one that is not valid is
//! refused whatever the certificate says. A stream may outlive the token that it was opened with: whoever serves one asks again.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, HeaderMap, Request, Response};
use oncelog_proto::{
    ErrorCode, Fault, TopicName,
    bearer::{AUTHORIZATION, token},
};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{
    identity::Identity,
    permissions::{Operation, Permissions},
    reload::{Current, Reload},
    tokens::{TokenDigest, Tokens},
};
use crate::{
    accept::Peer,
    metrics::{Metric, Registry, Unit},
    seldom::Seldom,
};

/// Who gets in, and what they may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    asking: Option<Arc<Asking>>,
    files: Reload,
}

/// What callers are asked, if they are.
#[derive(Debug)]
struct Asking {
    by_certificate: bool,
    tokens: Option<Current<Tokens>>,
    permissions: Option<Current<Permissions>>,
    refused: Seldom,
}

/// Who calls, and by what that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    identity: Identity,
    /// None: by a certificate.
    token: Option<TokenDigest>,
}

/// What the caller of one call may do.
#[derive(Clone, Debug)]
pub struct Rights(Option<(Arc<Asking>, Caller)>);

/// What a caller may do by the permissions of one moment: for whoever has many questions at once.
#[derive(Debug)]
pub struct Allowed<'a>(Option<(&'a Identity, Arc<Permissions>)>);

impl Access {
    /// Nobody is asked.
    pub fn off() -> Self {
        Self { asking: None, files: Reload::default() }
    }

    /// Asks for certificates, tokens, or either; if for neither, nobody is asked. Without permissions whoever is known may do
    /// everything.
    pub(super) fn new(
        by_certificate: bool,
        tokens: Option<Current<Tokens>>,
        permissions: Option<Current<Permissions>>,
        files: Reload,
    ) -> Self {
        let is_on = by_certificate || tokens.is_some();
        let asking = is_on.then(|| Arc::new(Asking { by_certificate, tokens, permissions, refused: Seldom::default() }));
        Self { asking, files }
    }

    /// What watches the files of a service: all of them together.
    pub fn files(&self) -> &Reload {
        &self.files
    }

    /// Is anybody asked?
    pub fn is_on(&self) -> bool {
        self.asking.is_some()
    }

    /// What the caller may do of a request with these extensions, which came through an [`AccessLayer`].
    ///
    /// # Errors
    /// It did not come that way, which is a defect of the service.
    pub fn rights(&self, extensions: &Extensions) -> Result<Rights, Fault> {
        let Some(asking) = &self.asking else { return Ok(Rights(None)) };
        let caller = extensions.get::<Caller>().ok_or_else(|| {
            Fault::new(
                ErrorCode::Unspecified,
                "nobody has asked who calls; this is a defect of the service, and nothing was done",
            )
        })?;
        Ok(Rights(Some((Arc::clone(asking), caller.clone()))))
    }

    /// Adds what can be counted of it to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let files = self.files.clone();
        registry.gauge(&STALE_FILES, move || Some(files.stale()));
    }
}

impl Asking {
    fn identify(&self, headers: &HeaderMap, peer: Option<&Identity>) -> Result<Caller, Fault> {
        match (headers.get(AUTHORIZATION), &self.tokens) {
            (Some(header), Some(tokens)) => {
                let token = header.to_str().ok().and_then(token).ok_or_else(|| {
                    unauthenticated("the call's authorization holds no token; send authorization: Bearer TOKEN")
                })?;
                let found = tokens.borrow().find(token);
                let (digest, identity) =
                    found.ok_or_else(|| unauthenticated("the call's token is not valid here, or no more"))?;
                Ok(Caller { identity, token: Some(digest) })
            }
            // Where there are no tokens, what is sent as one says nothing.
            _ => match peer {
                Some(identity) if self.by_certificate => Ok(Caller { identity: identity.clone(), token: None }),
                _ => Err(unauthenticated(match (self.by_certificate, self.tokens.is_some()) {
                    (true, false) => "the connection's certificate has no name (a URI or DNS name among its alternative names)",
                    (false, _) => "the call has no token; send authorization: Bearer TOKEN",
                    (true, true) => "the call has no token and the connection no certificate with a name; show one of them",
                })),
            },
        }
    }

    /// Waits until the token is taken back.
    async fn taken_back(&self, Caller { identity, token }: &Caller) {
        match (token, &self.tokens) {
            (Some(digest), Some(tokens)) => when(tokens, |tokens| !tokens.is_valid(*digest, identity)).await,
            _ => pending().await,
        }
    }

    fn is_valid(&self, Caller { identity, token }: &Caller) -> bool {
        match (token, &self.tokens) {
            (None, _) => true,
            (Some(digest), Some(tokens)) => tokens.borrow().is_valid(*digest, identity),
            (Some(_), None) => false,
        }
    }
}

impl Rights {
    /// Everything, as nobody is asked.
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// Who calls; none if nobody is asked.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.as_ref().map(|(_, caller)| &caller.identity)
    }

    /// May the caller do all that there is to be done? Then there is nothing to ask.
    pub fn are_unlimited(&self) -> bool {
        self.0.as_ref().is_none_or(|(asking, _)| asking.permissions.is_none())
    }

    /// Is what the caller showed still valid? To be asked by whoever serves a stream, again and again.
    ///
    /// # Errors
    /// `SASL_AUTHENTICATION_FAILED`.
    pub fn still_hold(&self) -> Result<(), Fault> {
        match &self.0 {
            Some((asking, caller)) if !asking.is_valid(caller) => Err(over()),
            _ => Ok(()),
        }
    }

    /// Waits until what the caller showed is no longer valid, mostly for ever: whoever serves a stream on which nothing happens
    /// could not ask. As [`Self::still_hold`].
    pub async fn end(&self) -> Fault {
        match &self.0 {
            Some((asking, caller)) => asking.taken_back(caller).await,
            None => pending().await,
        }
        over()
    }

    /// The same, or until the caller may no longer do this with the topic. As [`Self::check`].
    pub async fn end_for(&self, operation: Operation, topic: &TopicName) -> Fault {
        let denied = async {
            if let Some((asking, Caller { identity, .. })) = &self.0
                && let Some(permissions) = &asking.permissions
            {
                when(permissions, |permissions| !permissions.allow(identity, operation, topic)).await;
                return denied_topic(identity, operation, topic);
            }
            pending().await
        };
        tokio::select! {
            biased;
            fault = self.end() => fault,
            fault = denied => fault,
        }
    }

    /// What the caller may do now.
    pub fn now(&self) -> Allowed<'_> {
        let asking = self.0.as_ref();
        let asked = asking.and_then(|(asking, caller)| Some((asking.permissions.as_ref()?, &caller.identity)));
        Allowed(asked.map(|(permissions, identity)| (identity, Arc::clone(&permissions.borrow()))))
    }

    /// [`Allowed::check`], now.
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, operation: Operation, topic: &TopicName) -> Result<(), Fault> {
        self.now().check(operation, topic)
    }

    /// May the caller do this with any topic?
    ///
    /// # Errors
    /// `CLUSTER_AUTHORIZATION_FAILED`.
    pub fn check_somewhere(&self, operation: Operation) -> Result<(), Fault> {
        match self.now().0 {
            Some((identity, permissions)) if !permissions.allow_somewhere(identity, operation) => {
                Err(denied(ErrorCode::ClusterAuthorizationFailed, identity, operation, "any topic"))
            }
            _ => Ok(()),
        }
    }

    /// [`Allowed::show`], now.
    pub fn show(&self, topic: &TopicName) -> bool {
        self.now().show(topic)
    }
}

impl Allowed<'_> {
    /// May the caller do this with the topic?
    ///
    /// # Errors
    /// `TOPIC_AUTHORIZATION_FAILED`: says who may not do what.
    pub fn check(&self, operation: Operation, topic: &TopicName) -> Result<(), Fault> {
        match &self.0 {
            Some((identity, permissions)) if !permissions.allow(identity, operation, topic) => {
                Err(denied_topic(identity, operation, topic))
            }
            _ => Ok(()),
        }
    }

    /// May the caller know of the topic?
    pub fn show(&self, topic: &TopicName) -> bool {
        self.0.as_ref().is_none_or(|(identity, permissions)| permissions.show(identity, topic))
    }
}

/// Waits until it is so of what stands in some files; for ever, once nobody reads them any more.
async fn when<T>(current: &Current<T>, is_so: impl Fn(&T) -> bool) {
    let is_seen = current.clone().wait_for(|current| is_so(current)).await.is_ok();
    if !is_seen {
        pending().await
    }
}

fn denied_topic(who: &Identity, operation: Operation, topic: &TopicName) -> Fault {
    denied(ErrorCode::TopicAuthorizationFailed, who, operation, &format!("topic {topic}")).with("topic", topic)
}

fn denied(code: ErrorCode, who: &Identity, operation: Operation, what: &str) -> Fault {
    let operation = operation.word();
    let message = format!("{who} may not {operation} {what}: no line of the permissions gives it that; nothing was done");
    Fault::new(code, message).with("identity", who).with("operation", operation)
}

fn over() -> Fault {
    unauthenticated("the token that the stream was opened with is no longer valid; open another one with a valid token")
}

fn unauthenticated(message: &'static str) -> Fault {
    Fault::new(ErrorCode::SaslAuthenticationFailed, message)
}

/// Asks who calls, before the call is looked at.
#[derive(Clone, Debug)]
pub struct AccessLayer(Access);

impl AccessLayer {
    /// Lets in whom `access` knows.
    pub fn new(access: Access) -> Self {
        Self(access)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Asked<S>;

    fn layer(&self, inner: S) -> Asked<S> {
        Asked { inner, access: self.0.clone() }
    }
}

/// A service that is called by those who are known.
#[derive(Clone, Debug)]
pub struct Asked<S> {
    inner: S,
    access: Access,
}

impl<S> Service<Request<Body>> for Asked<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(asking) = &self.access.asking
            && !request.uri().path().starts_with(HEALTH)
        {
            let peer = request.extensions().get::<Peer>();
            match asking.identify(request.headers(), peer.and_then(|peer| peer.identity.as_ref())) {
                Ok(caller) => drop(request.extensions_mut().insert(caller)),
                Err(fault) => {
                    if let Some(count) = asking.refused.note() {
                        let peer = peer.and_then(|peer| peer.addr).map(tracing::field::display);
                        tracing::warn!(peer, count, "calls refused: {}", fault.message());
                    }
                    return Answering::Refused(Some(fault.to_status().into_http()));
                }
            }
        }
        // The token has been read, and nobody else is to see it.
        request.headers_mut().remove(AUTHORIZATION);
        Answering::Asked(self.inner.call(request))
    }
}

/// The answer to a call.
#[derive(Debug)]
pub enum Answering<F> {
    /// Nobody knows who calls.
    Refused(Option<Response<Body>>),
    /// The service's.
    Asked(F),
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.get_mut() {
            Self::Refused(answer) => Poll::Ready(Ok(answer.take().expect("it is asked for once"))),
            Self::Asked(answer) => Pin::new(answer).poll(cx),
        }
    }
}

static STALE_FILES: Metric = Metric::new(
    "oncelog.security.files.stale",
    Unit::Count("file"),
    "Certificates, tokens or permissions that were replaced by something that cannot be used; what they said before holds.",
);
const HEALTH: &str = "/grpc.health.v1.Health/";

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, path::Path, pin::pin};

    use oncelog_proto::bearer::authorization;
    use tokio::time::timeout;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::security::{Files, Security};

    const ORDERS: &str = "orders-0123456789";
    const REPORTS: &str = "reports-0123456789";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().expect("a directory"));
            place.write("tokens", &format!("orders {ORDERS}\nreports {REPORTS}\n"));
            place.write("permissions", "orders write orders.*\nreports read *\n");
            place
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).expect("written");
        }

        fn access(&self, permissions: bool) -> Access {
            let path = |name: &str| Path::new(self.0.path()).join(name);
            let permissions = permissions.then(|| path("permissions"));
            let Security { access, .. } =
                Files { tokens: Some(path("tokens")), permissions, ..Files::default() }.open().expect("right");
            access
        }
    }

    /// Calls through the layer; the rights that the service finds.
    async fn call(access: &Access, path: &str, token: Option<&str>, peer: Option<&str>) -> Result<Rights, Status> {
        let asked = access.clone();
        let service = service_fn(move |request: Request<Body>| {
            assert!(request.headers().get(AUTHORIZATION).is_none(), "it goes no further");
            let mut answer = Response::new(Body::empty());
            let rights = asked.rights(request.extensions()).map_err(|fault| fault.code());
            answer.extensions_mut().insert(rights);
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let mut request = Request::post(path).body(Body::empty()).expect("a request");
        if let Some(token) = token {
            request
                .headers_mut()
                .insert(AUTHORIZATION, authorization(token).expect("visible").to_str().expect("ASCII").parse().expect("a value"));
        }
        let identity = peer.map(|name| Identity::parse(name).expect("allowed"));
        request.extensions_mut().insert(Peer { addr: None, identity });
        let Ok(answer) = AccessLayer::new(access.clone()).layer(service).oneshot(request).await;
        match answer.extensions().get::<Result<Rights, ErrorCode>>() {
            Some(rights) => Ok(rights.clone().unwrap_or_else(|code| panic!("{code:?}"))),
            None => Err(Status::from_header_map(answer.headers()).expect("a status")),
        }
    }

    #[test]
    fn the_page_on_observability_shows_what_is_counted() {
        let mut registry = Registry::default();
        Access::off().register(&mut registry);
        let (table, page) = (registry.table(), include_str!("../../../docs/observability.md"));
        assert!(page.contains(&table), "docs/observability.md should have this table:\n{table}");
    }

    const SEND: &str = "/oncelog.v1.ProducerService/Send";

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect("allowed")
    }

    #[tokio::test]
    async fn who_shows_no_valid_token_is_refused_before_the_call_is_looked_at() {
        let place = Place::new();
        let access = place.access(true);
        for (token, said) in [(None, "no token"), (Some("orders-0123456780"), "not valid")] {
            let status = call(&access, SEND, token, None).await.expect_err("nobody knows them");
            assert_eq!(status.code(), Code::Unauthenticated);
            let details = status.get_error_details();
            assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("SASL_AUTHENTICATION_FAILED"));
            assert!(status.message().contains(said), "{status:?}");
            assert!(!format!("{status:?}").contains("0123456780"), "{status:?}");
        }
        let rights = call(&access, SEND, Some(ORDERS), None).await.expect("known");
        assert_eq!(rights.identity().map(Identity::name), Some("orders"));
    }

    #[tokio::test]
    async fn probes_are_let_through_and_a_service_that_was_not_asked_for_its_caller_answers_nobody() {
        let access = Place::new().access(false);
        let asked = access.clone();
        let service = service_fn(move |request: Request<Body>| {
            assert!(asked.rights(request.extensions()).is_err(), "nobody is known");
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let request = Request::post("/grpc.health.v1.Health/Check").body(Body::empty()).expect("a request");
        let Ok(_) = AccessLayer::new(access).layer(service).oneshot(request).await;
    }

    #[tokio::test]
    async fn a_token_counts_for_more_than_a_certificate() {
        let place = Place::new();
        let mut access = place.access(false);
        Arc::get_mut(access.asking.as_mut().expect("on")).expect("nobody else has it").by_certificate = true;
        let who =
            async |token, peer| call(&access, SEND, token, peer).await.map(|rights| rights.identity().map(ToString::to_string));
        assert_eq!(who(None, Some("certified")).await.expect("known").as_deref(), Some("certified"));
        assert_eq!(who(Some(ORDERS), Some("certified")).await.expect("known").as_deref(), Some("orders"));
        assert!(who(Some("not-valid-0123456"), Some("certified")).await.is_err());
        assert!(who(None, None).await.is_err());
    }

    #[tokio::test]
    async fn a_denied_call_says_who_may_not_do_what() {
        let place = Place::new();
        let rights = call(&place.access(true), SEND, Some(ORDERS), None).await.expect("known");
        assert!(!rights.are_unlimited());
        assert!(rights.check(Operation::Write, &topic("orders.eu")).is_ok());
        let fault = rights.check(Operation::Read, &topic("orders.eu")).expect_err("not given");
        assert_eq!(fault.code(), ErrorCode::TopicAuthorizationFailed);
        assert_eq!(
            fault.message(),
            "orders may not read topic orders.eu: no line of the permissions gives it that; nothing was done"
        );
        assert!(rights.check_somewhere(Operation::Write).is_ok());
        let fault = rights.check_somewhere(Operation::Administer).expect_err("not given");
        assert_eq!(fault.code(), ErrorCode::ClusterAuthorizationFailed);
        assert!(rights.show(&topic("orders.eu")) && !rights.show(&topic("payments")));
    }

    /// Files are looked at now and then.
    async fn until(is_so: impl Fn() -> bool) {
        for _ in 0..10 {
            if is_so() {
                return;
            }
            tokio::time::sleep(super::super::reload::EVERY).await;
        }
        panic!("it is never so");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_taken_back_ends_the_rights_of_a_stream_and_permissions_change_under_it() {
        let place = Place::new();
        let access = place.access(true);
        let rights = call(&access, SEND, Some(ORDERS), None).await.expect("known");
        place.write("permissions", "orders read *\n");
        until(|| rights.check(Operation::Read, &topic("payments")).is_ok()).await;
        assert!(rights.still_hold().is_ok());
        place.write("tokens", &format!("orders another-0123456789\nreports {ORDERS}\n"));
        until(|| rights.still_hold().is_err()).await;
        assert_eq!(rights.still_hold().expect_err("over").code(), ErrorCode::SaslAuthenticationFailed);
        assert_eq!(rights.end().await.code(), ErrorCode::SaslAuthenticationFailed, "it is over already");
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_waits_is_told_when_the_rights_end() {
        let place = Place::new();
        let access = place.access(true);
        let rights = call(&access, SEND, Some(REPORTS), None).await.expect("known");
        let orders = topic("orders");
        let mut read = pin!(rights.end_for(Operation::Read, &orders));
        let mut end = pin!(rights.end());
        let long = 10 * super::super::reload::EVERY;
        place.write("permissions", "orders write orders.*\nreports read orders\n");
        assert!(timeout(long, &mut read).await.is_err(), "it may still read that");
        place.write("permissions", "orders write orders.*\n");
        let fault = timeout(long, &mut read).await.expect("told");
        assert_eq!(fault.code(), ErrorCode::TopicAuthorizationFailed);
        assert!(timeout(long, &mut end).await.is_err(), "its token is valid");
        place.write("tokens", &format!("orders {ORDERS}\n"));
        assert_eq!(timeout(long, end).await.expect("told").code(), ErrorCode::SaslAuthenticationFailed);
        let unasked = Rights::unlimited();
        assert!(timeout(long, unasked.end_for(Operation::Read, &orders)).await.is_err());
    }

    #[tokio::test]
    async fn without_permissions_whoever_is_known_may_do_everything_and_with_access_off_everybody() {
        let rights = call(&Place::new().access(false), SEND, Some(REPORTS), None).await.expect("known");
        assert!(rights.are_unlimited() && rights.check(Operation::Administer, &topic("t")).is_ok());
        let rights = call(&Access::off(), SEND, None, None).await.expect("nobody is asked");
        assert!(rights.are_unlimited() && rights.identity().is_none() && rights.still_hold().is_ok());
    }
}
