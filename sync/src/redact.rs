//! `Debug` of what carries secrets: bodies and datagrams show their length (S6).

use std::fmt;

use crate::{Input, Output, TakeoverObject};

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Datagram { from, payload } => {
                write!(f, "Datagram(from {from}, {} octets)", payload.len())
            }
            Input::Commit {
                object,
                version,
                body,
                children,
            } => f
                .debug_struct("Commit")
                .field("object", object)
                .field("version", version)
                .field("octets", &body.as_ref().map(|body| body.len()))
                .field("children", children)
                .finish(),
            Input::Timeout => f.write_str("Timeout"),
            Input::Persisted => f.write_str("Persisted"),
            Input::PersistFailed => f.write_str("PersistFailed"),
            Input::Usage(usages) => write!(f, "Usage({} SAs)", usages.len()),
            Input::Checkpoint { sa, .. } => write!(f, "Checkpoint({sa})"),
            Input::Drained => write!(f, "Drained"),
            Input::Ends(ends) => write!(f, "Ends({} SAs)", ends.len()),
            Input::Switchover => f.write_str("Switchover"),
            Input::Shutdown => f.write_str("Shutdown"),
            Input::Late { to, packets } => write!(f, "Late(to {to}, {} packets)", packets.len()),
            Input::Retrieve { spi } => write!(f, "Retrieve({spi})"),
            Input::Retrieved {
                to, object, body, ..
            } => write!(f, "Retrieved(to {to}, {object}, {} octets)", body.len()),
            Input::Ready { ready, broken } => {
                write!(f, "Ready({ready}, {} broken)", broken.len())
            }
            Input::Health { healthy, .. } => write!(f, "Health({healthy})"),
        }
    }
}

impl fmt::Debug for TakeoverObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeoverObject")
            .field("object", &self.object)
            .field("version", &self.version)
            .field("exact", &self.exact)
            .field("octets", &self.body.len())
            .field("children", &self.children)
            .finish()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Datagram { to, payload } => {
                write!(f, "Datagram(to {to}, {} octets)", payload.len())
            }
            Output::Persist(durable) => write!(f, "Persist({durable:?})"),
            Output::Lead {
                epoch,
                base,
                objects,
                left,
            } => f
                .debug_struct("Lead")
                .field("epoch", epoch)
                .field("base", base)
                .field("objects", objects)
                .field("left", left)
                .finish(),
            Output::Inherited(object) => write!(f, "Inherited({object:?})"),
            Output::StepDown { reason } => write!(f, "StepDown({reason:?})"),
            Output::Drain => f.write_str("Drain"),
            Output::Freeze => write!(f, "Freeze"),
            Output::Resume => write!(f, "Resume"),
            Output::Late { from, packets } => {
                write!(f, "Late(from {from}, {} packets)", packets.len())
            }
            Output::Retrieve { from, spi } => write!(f, "Retrieve(from {from}, {spi})"),
            Output::Retrieved {
                from, object, body, ..
            } => write!(f, "Retrieved(from {from}, {object}, {} octets)", body.len()),
            Output::Lease { sa, lease } => write!(f, "Lease({sa}, {lease:?})"),
            Output::Committed {
                object,
                version,
                leases,
            } => write!(f, "Committed({object}, {version}, {leases:?})"),
            Output::Discard { object, version } => write!(f, "Discard({object}, {version})"),
            Output::Store {
                object,
                version,
                body,
            } => write!(f, "Store({object}, {version}, {} octets)", body.len()),
            Output::Forget { object } => write!(f, "Forget({object})"),
            Output::Degraded { on, members } => write!(f, "Degraded({on}, {members:?})"),
            Output::RekeyNow { sa, reason } => write!(f, "RekeyNow({sa}, {reason:?})"),
            Output::Event(event) => write!(f, "Event({event:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;
    use zeroize::Zeroizing;

    #[test]
    fn bodies_are_not_printed() {
        let body = Zeroizing::new(vec![211; 3]);
        let printed = format!(
            "{:?}",
            Output::Store {
                object: ObjectId(1),
                version: 2,
                body: body.clone(),
            }
        );
        assert_eq!(printed, "Store(0000000000000001, 2, 3 octets)");
        let commit = Input::Commit {
            object: ObjectId(1),
            version: 2,
            body: Some(body),
            children: Vec::new(),
        };
        assert!(!format!("{commit:?}").contains("211"));
    }
}
