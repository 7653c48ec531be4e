//! A connection before its messages flow: requests are parsed, routed and answered, with a page, a
//! refusal, or the upgrade.
//!
//! Knows HTTP heads, routes, decisions and reports. Must not know frames, nor how output reaches
//! the kernel.

use std::mem::MaybeUninit;

use crate::config::HEADER_COUNT_MAX;
use crate::error::Refusal;
use crate::handler::{Acceptance, Decision};
use crate::http::proxy::{self, Malformed, Preface};
use crate::http::{self, Body, Head, Response, forwarded};
use crate::hub::{EndpointIndex, Slot};
use crate::protocol::handshake::{self, HeaderSlots};
use crate::routing::{Params, Route};
use crate::shard::EventLoop;
use crate::shard::connection::{Admission, Closing, Heard, Phase};
use crate::shard::reports::{Kind, Quote};
use crate::shard::stage::ShutdownStage;

/// What a request comes to.
enum Answer {
    /// A page; the connection stays for the next request, or not.
    Page(usize, http::Connection, Body),
    /// A response that ends the connection.
    Refuse(Response, Body),
    /// The upgrade is granted.
    Open(EndpointIndex),
    /// The handler decides later. The request is kept until then.
    Undecided,
    /// The end, without a word.
    Drop,
}

impl EventLoop {
    /// Handles one request at the front of `input`, or what a trusted proxy says before the first;
    /// how many bytes it took, or `None` while it is incomplete.
    pub(in crate::shard) fn upgrade(&mut self, slot: Slot, input: &[u8]) -> Option<usize> {
        match self.preface(slot, input) {
            Ok(Preface::Absent) => self.request(slot, input),
            Ok(Preface::Partial) => None,
            Ok(Preface::Header { length, source }) => {
                let client = source.map(|address| address.to_canonical());
                self.shard.connection_mut(slot).hear_proxy(client);
                // What a proxy behind the proxy says for whom, the upgrade tells.
                let client = self.shard.connection(slot).client_ip();
                let is_told = !self.application.service.proxies.contains(client);
                if is_told && !self.admit_client(slot) {
                    self.shard.lose(slot);
                }
                Some(length)
            }
            Err(Malformed) => {
                let refusal = Refusal::BadRequest("The PROXY header is malformed.");
                self.report_unparsed(slot, input, refusal);
                self.refuse(slot, &refusal.into(), Body::Whole);
                Some(input.len())
            }
        }
    }

    /// How the connection begins. Only a trusted proxy is heard on that: from anyone else the
    /// header is no HTTP.
    fn preface(&self, slot: Slot, input: &[u8]) -> Result<Preface, Malformed> {
        let connection = self.shard.connection(slot);
        let is_first = matches!(connection.phase(), Phase::Upgrading { heard: Heard::Nothing });
        if is_first && self.application.service.proxies.contains(connection.peer().ip()) {
            proxy::parse(input)
        } else {
            Ok(Preface::Absent)
        }
    }

    fn request(&mut self, slot: Slot, input: &[u8]) -> Option<usize> {
        if input.is_empty() {
            return None;
        }
        self.shard.begin_request(slot);
        let mut room: HeaderSlots<'_> = [MaybeUninit::uninit(); HEADER_COUNT_MAX];
        let (answer, used) = match handshake::parse(input, &mut room, self.shard.server_limits()) {
            Ok(None) => return None,
            Ok(Some((head, used))) => (self.answer(slot, &head), used),
            Err(refusal) => {
                self.report_unparsed(slot, input, refusal);
                (Answer::Refuse(refusal.into(), Body::Whole), input.len())
            }
        };
        self.act(slot, answer).then_some(used)
    }

    /// Does what a request came to; `false` if that is still to be decided.
    fn act(&mut self, slot: Slot, answer: Answer) -> bool {
        match answer {
            Answer::Page(page, after, body) => self.serve(slot, page, after, body),
            Answer::Refuse(response, body) => {
                self.refuse(slot, &response, body);
                self.shard.discard(slot, response);
            }
            Answer::Open(endpoint) => self.open(slot, endpoint),
            Answer::Undecided => return false,
            Answer::Drop => self.shard.lose(slot),
        }
        true
    }

    /// Goes on with an upgrade that has been decided, from its request, which has been kept.
    pub(in crate::shard) fn go_on_upgrading(&mut self, slot: Slot, decision: Decision) {
        let backlog = self.shard.connection_mut(slot).take_input();
        let mut room: HeaderSlots<'_> = [MaybeUninit::uninit(); HEADER_COUNT_MAX];
        let limits = self.shard.server_limits();
        let Ok(Some((head, used))) = handshake::parse(&backlog, &mut room, limits) else {
            unreachable!("what was decided about was a whole request");
        };
        let route = self.application.service.routes.find(head.path);
        let (Some((Route { endpoint: Some(endpoint), .. }, params)), Ok(key)) =
            (route, handshake::check_upgrade(&head))
        else {
            unreachable!("what was decided about was a valid upgrade");
        };
        self.shard.note_asked(endpoint);
        let answer = self.conclude(slot, endpoint, params, &head, key, decision);
        self.act(slot, answer);
        self.shard.connection_mut(slot).keep_input(&backlog[used..]);
        self.skim(slot);
        self.shard.make_ready(slot);
    }

    /// Decides what a request comes to. If it is the upgrade, the handshake's answer has been
    /// written.
    fn answer(&mut self, slot: Slot, head: &Head<'_>) -> Answer {
        let body = body_for(head);
        let Some((route, params)) = self.application.service.routes.find(head.path) else {
            return self.deny(slot, head, Refusal::NotFound);
        };
        if let Some(page) = route.page
            && (route.endpoint.is_none() || !handshake::is_upgrade(head))
        {
            if !matches!(head.method, "GET" | "HEAD") {
                return self.deny(slot, head, Refusal::MethodNotAllowed);
            }
            let stays = head.keeps_alive()
                && !head.has_body()
                && self.life == ShutdownStage::Running
                && !self.shard.connection(slot).admission().is_over_limit()
                && !self.shard.server_limits().keep_alive_timeout.is_zero();
            let after = if stays { http::Connection::KeepAlive } else { http::Connection::Close };
            return Answer::Page(page, after, body);
        }
        let Some(endpoint) = route.endpoint else {
            return self.deny(slot, head, Refusal::NotFound);
        };
        if self.life != ShutdownStage::Running {
            return self.deny(slot, head, Refusal::Unavailable);
        }
        let key = match handshake::check_upgrade(head) {
            Ok(key) => key,
            Err(refusal) => return self.deny(slot, head, refusal),
        };
        match self.application.origins(endpoint).check(head) {
            Ok(()) => self.decide(slot, endpoint, params, head, key),
            Err(response) => {
                let why = response.whole_body();
                self.report_response(slot, head, Kind::Origin(endpoint), &response, &why);
                Answer::Refuse(response, body)
            }
        }
    }

    /// Asks the endpoint about a valid upgrade, if there is a place for the connection.
    fn decide(
        &mut self,
        slot: Slot,
        endpoint: EndpointIndex,
        params: Params,
        head: &Head<'_>,
        key: &[u8],
    ) -> Answer {
        let connection = self.shard.connection(slot);
        let (peer, proxies) = (connection.peer(), &self.application.service.proxies);
        let client = match forwarded::client_ip(head, connection.client_ip(), proxies) {
            Ok(client) => client,
            Err(refusal) => return self.deny(slot, head, refusal),
        };
        if client != connection.client_ip() {
            self.shard.connection_mut(slot).set_client(client);
        }
        if !self.admit_client(slot) {
            return Answer::Drop;
        }
        match self.shard.connection(slot).admission() {
            Admission::OverLimit => return self.deny(slot, head, Refusal::Unavailable),
            Admission::OverAddressLimit => {
                return self.deny(slot, head, Refusal::TooManyConnections);
            }
            Admission::Placed | Admission::Counted | Admission::Evicted => {}
        }
        if !self.may_upgrade(slot) {
            return self.deny(slot, head, Refusal::TooManyUpgrades);
        }
        self.shard.connection_mut(slot).hear_upgrade(endpoint);
        self.shard.note_asked(endpoint);
        let decided = self.application.upgrade(endpoint, head, (peer, client), &params);
        let decision = decided.unwrap_or_else(|| {
            self.shard.report_upgrade_panic(slot);
            Decision::refuse(Refusal::Internal)
        });
        self.conclude(slot, endpoint, params, head, key, decision)
    }

    /// Does what the handler has decided about a valid upgrade.
    fn conclude(
        &mut self,
        slot: Slot,
        endpoint: EndpointIndex,
        params: Params,
        head: &Head<'_>,
        key: &[u8],
        decision: Decision,
    ) -> Answer {
        let acceptance = match decision {
            // Decided after the server has begun to close its connections.
            Decision::Accept(acceptance) if self.life != ShutdownStage::Running => {
                self.shard.discard(slot, acceptance.session);
                return self.deny(slot, head, Refusal::Unavailable);
            }
            Decision::Accept(acceptance) => acceptance,
            Decision::Reject(response) => {
                let why = b"The handler rejects the upgrade.";
                self.report_response(slot, head, Kind::Rejected(endpoint), &response, why);
                return Answer::Refuse(response, Body::Whole);
            }
            Decision::Failed(error) => {
                self.shard.report_failed_upgrade(slot, &error);
                return Answer::Refuse(Refusal::Internal.into(), Body::Whole);
            }
            Decision::Later(later) => {
                return match self.application.await_upgrade(&mut self.shard, slot, *later) {
                    Some(decision) => self.conclude(slot, endpoint, params, head, key, decision),
                    None => Answer::Undecided,
                };
            }
        };
        let Acceptance { session, subprotocol, headers } = acceptance;
        self.application.keep_session(slot, session);
        let subprotocol = subprotocol.choose(head.subprotocols()).unwrap_or_else(|name| {
            self.shard.report_not_offered(slot, &name);
            None
        });
        let headers = headers.iter().map(|(name, value)| (&**name, &**value));
        handshake::accept(self.shard.http_buffer(), key, subprotocol.as_deref(), headers);
        self.shard.connection_mut(slot).keep_request(head.query, params, subprotocol);
        Answer::Open(endpoint)
    }

    fn open(&mut self, slot: Slot, endpoint: EndpointIndex) {
        self.shard.end_http(slot);
        self.shard.open_connection(slot, endpoint, self.application.mode(endpoint));
        self.application.connect(&mut self.shard, slot);
    }

    fn serve(&mut self, slot: Slot, page: usize, after: http::Connection, body: Body) {
        let has_begun = self.shard.shared().shutdown.has_begun();
        let service = &self.application.service;
        let page = match &service.unready {
            Some((readiness, unready)) if *readiness == page && has_begun => unready,
            _ => &service.pages[page],
        };
        self.shard.append(slot, page.head(after));
        if body == Body::Whole {
            self.shard.append(slot, page.body.clone());
        }
        if after == http::Connection::Close {
            self.shard.begin_closing(slot, Closing::OutboxThenEnd);
            return;
        }
        self.shard.end_request(slot);
    }

    /// Refuses a request, which is reported.
    fn deny(&mut self, slot: Slot, head: &Head<'_>, refusal: Refusal) -> Answer {
        let (response, (_, why)) = (Response::from(refusal), refusal.status());
        self.report_response(slot, head, Kind::Refused(refusal), &response, why.as_bytes());
        Answer::Refuse(response, body_for(head))
    }

    /// Reports a refusal.
    #[cold]
    fn report_response(
        &mut self,
        slot: Slot,
        head: &Head<'_>,
        kind: Kind,
        response: &Response,
        why: &[u8],
    ) {
        let connection = self.shard.connection(slot);
        let known = connection.client_ip();
        let told = forwarded::client_ip(head, known, &self.application.service.proxies);
        let (client, path) = (told.unwrap_or(known), Quote(head.path.as_bytes()));
        let (status, why) = (response.status(), String::from_utf8_lossy(why));
        self.shard.report(kind, format_args!("{client} asked for {path} and got {status}: {why}"));
    }

    /// Reports the refusal of what could not be parsed, or did not arrive as a whole.
    #[cold]
    fn report_unparsed(&mut self, slot: Slot, input: &[u8], refusal: Refusal) {
        let (client, said) = (self.shard.connection(slot).client_ip(), Quote(input));
        let (status, why) = refusal.status();
        self.shard.report(
            Kind::Refused(refusal),
            format_args!("{client} sent {said} and got {status}: {why}"),
        );
    }

    fn refuse(&mut self, slot: Slot, response: &Response, body: Body) {
        self.application.forget(&mut self.shard, slot);
        // What else was said, and may have waited, is of no use.
        self.shard.connection_mut(slot).clear_backlog();
        self.shard.append(slot, response.encode(http::Connection::Close, body));
        self.shard.begin_closing(slot, Closing::OutboxThenEnd);
    }

    /// The deadline of a connection that speaks HTTP has passed. A request that has begun is
    /// refused. A connection that has sent nothing, or nothing since its last page, is closed
    /// without a word.
    pub(in crate::shard) fn time_out_upgrade(&mut self, slot: Slot) {
        let connection = self.shard.connection(slot);
        if connection.is_waiting() {
            self.application.cancel(&mut self.shard, slot);
            self.turn_away(slot, Refusal::Undecided);
        } else if connection.backlog().is_empty() {
            // A page may be on its way: to close behind it would reset the connection as soon as
            // the client asks for more, and cut the page.
            let closing =
                if connection.has_output() { Closing::OutboxThenEnd } else { Closing::Outbox };
            self.shard.begin_closing(slot, closing);
            self.shard.settle(slot);
        } else {
            self.turn_away(slot, Refusal::Timeout);
        }
    }

    /// Refuses a request that is not complete, outside of the connection's own service.
    pub(in crate::shard) fn turn_away(&mut self, slot: Slot, refusal: Refusal) {
        let backlog = self.shard.connection_mut(slot).take_input();
        self.report_unparsed(slot, &backlog, refusal);
        self.shard.enter(slot);
        self.refuse(slot, &refusal.into(), Body::Whole);
        self.shard.exit(slot);
        self.shard.settle(slot);
    }
}

/// What of a response's body is sent to this request.
fn body_for(head: &Head<'_>) -> Body {
    if head.method == "HEAD" { Body::Omitted } else { Body::Whole }
}
