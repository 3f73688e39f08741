//! Both windows, with the outstanding requests and what each is for.
//!
//! The last response and the first outstanding request have fields of their own, as they had when
//! windows were one request wide.

use hitless_sa::{Instant, MessageId};

use super::pending::{pending, pending_record};
use super::record::{
    AskedRecord, IkeRecord, PendingRecord, RequestRecord, ResponseRecord, WindowRecord,
};
use super::{ImportError, collect};
use crate::ike::asked::{Asked, Digest};
use crate::ike::established::IkeSa;
use crate::ike::tasks::Pending;
use crate::ike::window::{MAX_WINDOW, Outstanding, Response, Window};

pub(super) fn window_record(window: &Window) -> WindowRecord {
    let mut responses = window.responses.iter();
    let last = responses.next_back();
    let first = window.outstanding.first_key_value();
    WindowRecord {
        next_request: window.next_request.0,
        expected: window.expected.0,
        peer_window: window.peer_window,
        response_id: last.map(|(id, _)| id.0),
        response: last.map_or_else(Vec::new, |(_, r)| r.bytes.clone()),
        outstanding_id: first.map(|(id, _)| id.0),
        outstanding: first.map_or_else(Vec::new, |(_, o)| o.bytes.clone()),
        asked: last.and_then(|(_, r)| r.request.as_ref()).map(asked_record),
        responses: responses.map(response_record).collect(),
        gaps: window.gaps.iter().map(|id| id.0).collect(),
        own: window.own,
        announced: window.announced,
    }
}

fn response_record((id, response): (&MessageId, &Response)) -> ResponseRecord {
    ResponseRecord {
        id: id.0,
        bytes: response.bytes.clone(),
        asked: response.request.as_ref().map(asked_record),
    }
}

fn asked_record(asked: &Asked) -> AskedRecord {
    AskedRecord {
        datagram: asked.datagram.to_vec(),
        total: asked.total.into(),
        content: asked.content.to_vec(),
    }
}

/// Without the outstanding requests.
pub(super) fn window(record: &WindowRecord) -> Result<Window, ImportError> {
    let own = record.own.max(1);
    let bounded = own <= MAX_WINDOW
        && record.responses.len() < own as usize
        && record.gaps.len() < own as usize;
    if !bounded {
        return Err(ImportError::Field("window"));
    }
    let (next, expected) = (MessageId(record.next_request), MessageId(record.expected));
    let mut window = Window::new(next, expected, own);
    window.peer_window = record.peer_window;
    window.announced = record.announced;
    window.gaps = record.gaps.iter().copied().map(MessageId).collect();
    let mut keep = |id: u32, bytes: &[u8], request: Option<&AskedRecord>| {
        let response = Response {
            bytes: bytes.to_vec(),
            request: request.map(asked).transpose()?,
        };
        window.responses.insert(MessageId(id), response);
        Ok(())
    };
    for response in &record.responses {
        keep(response.id, &response.bytes, response.asked.as_ref())?;
    }
    if let Some(id) = record.response_id {
        keep(id, &record.response, record.asked.as_ref())?;
    }
    Ok(window)
}

fn asked(record: &AskedRecord) -> Result<Asked, ImportError> {
    let bad = || ImportError::Field("digest");
    let digest = |octets: &[u8]| Digest::try_from(octets).map_err(|_| bad());
    Ok(Asked {
        datagram: digest(&record.datagram)?,
        total: u16::try_from(record.total).map_err(|_| bad())?,
        content: digest(&record.content)?,
    })
}

/// The outstanding requests but the first.
pub(super) fn requests_record(ike: &IkeSa) -> Vec<RequestRecord> {
    let others = ike.pending.iter().zip(&ike.window.outstanding).skip(1);
    let record =
        |((id, pending), (_, outstanding)): ((&MessageId, _), (_, &Outstanding))| RequestRecord {
            id: id.0,
            bytes: outstanding.bytes.clone(),
            pending: Some(pending_record(pending)),
        };
    others.map(record).collect()
}

/// The outstanding requests.
pub(super) fn requests(
    record: &IkeRecord,
    ike: &mut IkeSa,
    now: Instant,
) -> Result<(), ImportError> {
    let bad = ImportError::Field("pending");
    let window = record.window.as_ref();
    let first = window.and_then(|w| Some((w.outstanding_id?, &w.outstanding)));
    if first.is_some() != record.pending.is_some() || first.is_none() && !record.requests.is_empty()
    {
        return Err(bad);
    }
    let first = first.map(|(id, bytes)| (id, bytes, record.pending.as_ref()));
    let others = record.requests.iter();
    let others = others.map(|r| (r.id, &r.bytes, r.pending.as_ref()));
    let all: Vec<(u32, &Vec<u8>, Option<&PendingRecord>)> =
        first.into_iter().chain(others).collect();
    let all = collect(&all, |(id, bytes, what)| {
        let what = pending(what.ok_or(bad.clone())?)?;
        let outstanding = Outstanding {
            bytes: (*bytes).clone(),
            sent: 0,
            resend_at: now,
            fills: matches!(what, Pending::Filler),
        };
        Ok((MessageId(*id), outstanding, what))
    })?;
    for (id, outstanding, what) in all {
        ike.window.outstanding.insert(id, outstanding);
        ike.pending.insert(id, what);
    }
    Ok(())
}
