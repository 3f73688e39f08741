//! The log of the daemon: one line an event, to stderr, where journald or a terminal reads it.
//! The packet path logs nothing; it counts.

mod stderr;

use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use hitless_sync::StepDown;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::{gateway, ike};
use stderr::Lines;

/// Where the log goes, once it is started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Starts the log, once a process. `filter` is a level or a filter such as
/// `info,hitless::ike=debug`; the environment variable HITLESS_LOG overrides it. A second call
/// changes nothing.
pub fn start(filter: &str) -> Result<(), ParseError> {
    let environment = std::env::var("HITLESS_LOG").ok();
    let filter = EnvFilter::builder().parse(environment.as_deref().unwrap_or(filter))?;
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = LINES.get_or_init(|| Lines::to(std::io::stderr()));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A disk that is full or a reader that is gone loses lines; it must not end the gateway.
        .log_internal_errors(false)
        .with_writer(|| lines.clone())
        .with_ansi(!journal && std::io::stderr().is_terminal());
    // A log that is already there, as in a test, stays.
    let _ = if journal {
        tracing::subscriber::set_global_default(subscriber.event_format(Journal).finish())
    } else {
        let format = Format::default().with_target(false);
        tracing::subscriber::set_global_default(subscriber.event_format(format).finish())
    };
    Ok(())
}

/// Waits, not for ever, until what was logged is written: before the process ends.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// One line for what happened in the gateway, in the words that people grep for in strongSwan's log.
pub fn gateway_event(event: &gateway::Event) {
    use gateway::Event as G;
    match event {
        G::Ike(event) => ike_event(event),
        G::Link(ike::Event::AuthenticationFailed { peer, reason }) => {
            tracing::warn!("member {peer} is not of this cluster: {reason}");
        }
        G::Link(event) => tracing::debug!(?event, "sync link"),
        G::Sync(event) => sync_event(event),
        G::Leads {
            epoch,
            base: Some(_),
            sas,
            skip,
            exact,
        } => {
            tracing::warn!(%epoch, sas, skip, exact, "took over: this member is active");
        }
        G::Inherited { skip } => tracing::info!(skip, "went on with all that it took over"),
        G::Leads { epoch, .. } => tracing::info!(%epoch, "this member is active"),
        G::SteppedDown { reason } => stepped_down(*reason),
        G::Degraded { on: true } => {
            tracing::warn!("the standby is silent: nobody could take over now");
        }
        G::Degraded { on: false } => tracing::info!("a standby could take over again"),
        G::Acquired { connection, child } => {
            tracing::info!("a packet wants CHILD_SA {connection}.{child}: initiating");
        }
        G::Spent { sa, reason } => tracing::debug!("CHILD_SA {{{sa}}}: {reason}: rekeying it"),
        G::Silent { sa } => {
            tracing::warn!("CHILD_SA {{{sa}}} hears nothing since the takeover: rekeying it");
        }
        G::Unusable { sa, reason } => tracing::error!(%sa, reason, "CHILD_SA cannot be carried"),
        G::Unreadable { ike, reason } => {
            tracing::error!(%ike, reason, "replicated IKE_SA cannot be read; given up");
        }
        G::WouldClose { ike, sa, reason } => {
            tracing::warn!(
                "this member would not carry on CHILD_SA {{{sa}}} of IKE_SA {ike}: {reason}"
            );
        }
        G::Health { ailments } if ailments.is_empty() => {
            tracing::info!("this member could be active again");
        }
        G::Health { ailments } => tracing::warn!("not fit to be active: {}", ailments.join(", ")),
        G::WorkerLost { worker } => {
            tracing::error!(
                worker,
                "a worker thread has ended, or takes no commands; this member cannot be active until it is \
                 started again"
            );
        }
    }
}

/// What the members make of each other, in words.
fn sync_event(event: &hitless_sync::Event) {
    use hitless_sync::Event as S;
    match event {
        S::Restarted {
            member,
            incarnation,
        } => tracing::info!("member {member} has started, incarnation {incarnation}"),
        S::SessionOpened { member, epoch } => {
            tracing::info!("member {member} joins epoch {epoch}: copying the state to it");
        }
        S::SessionAbandoned { member } => {
            tracing::warn!("member {member} went silent before it could take over");
        }
        S::SessionReleased { member } => {
            tracing::info!("member {member} gave up the right to take over");
        }
        S::Admitted { member, epoch } => {
            tracing::info!("member {member} may take over epoch {epoch}");
        }
        S::Suspected { leader, silent_for } => tracing::warn!(
            "member {leader}, the active, is silent for {} ms: taking over",
            silent_for.as_millis()
        ),
        S::LeaderGone { leader } => {
            tracing::info!("member {leader} is not active any more");
        }
        S::NoRight { reason } => {
            tracing::warn!("the old SAs cannot be carried on: {reason}");
        }
        S::ConfigMismatch { .. } | S::NarrowPath { .. } | S::LayoutDiffers { .. } => {
            misconfigured(event);
        }
        S::StaleIncarnation {
            member,
            incarnation,
        } => tracing::warn!(
            "member {member} speaks as incarnation {incarnation}, which is over; if that does not \
             end, its epoch file is lost or old"
        ),
        S::RepeatedIncarnation {
            member,
            incarnation,
        } => tracing::warn!(
            "refused member {member}, incarnation {incarnation}: it has lost its epoch file or \
             runs twice; keep the file across restarts, remove the member, and add it under an id \
             that was never used"
        ),
        S::Malformed { member } => {
            tracing::warn!("member {member} sends what cannot be read; is it of another version?");
        }
        S::UnexpectedLate { member } => {
            tracing::warn!("member {member} forwards packets, and has not handed over to us");
        }
        S::UnexpectedRetrieval { member } => {
            tracing::warn!("member {member} asks for an SA or gives one, out of turn");
        }
        S::UnknownMember { member } => {
            tracing::warn!("member {member} is not in cluster.members");
        }
        S::PersistFailed => tracing::error!(
            "the epoch file cannot be written: this member cannot become active; look at \
             cluster.state_dir"
        ),
        S::SwitchoverRefused { reason } => tracing::warn!("no switchover: {reason}"),
        S::CommitRefused { object, reason } => {
            tracing::warn!("a change of IKE_SA {:016x} is refused: {reason}", object.0);
        }
        S::Stopped => tracing::info!("ready to end"),
    }
}

/// What an operator is to mend between two members.
fn misconfigured(event: &hitless_sync::Event) {
    use hitless_sync::Event as S;
    match event {
        S::ConfigMismatch { member } => tracing::warn!(
            "member {member} has another [cluster] section; make them alike on all members"
        ),
        S::NarrowPath { member, octets } => tracing::warn!(
            "messages of {octets} octets do not reach member {member}, smaller ones do: let IP fragments pass on \
             the sync link, or give it the MTU that its path has"
        ),
        S::LayoutDiffers { member } => tracing::warn!(
            "the ports of member {member} are on other networks than ours; what only one of us reaches is \
             lost with a takeover"
        ),
        _ => {}
    }
}

fn stepped_down(reason: StepDown) {
    match reason {
        StepDown::Deposed { by } => {
            tracing::warn!("stepped down: another member leads epoch {by}, above ours");
        }
        StepDown::Outranked { by } => tracing::warn!(
            "stepped down: two members led at once, and the one of epoch {by} holds more"
        ),
        StepDown::SuccessorLost { by } => tracing::warn!(
            "stepped down: the member that was to take over lost its memory and led epoch {by}"
        ),
        StepDown::Switchover => tracing::info!("stepped down: handed over to another member"),
        StepDown::Shutdown => tracing::info!("stepped down: asked to end"),
    }
}

fn ike_event(event: &ike::Event) {
    use ike::Event as E;
    match event {
        E::IkeEstablished { ike, connection } => {
            tracing::info!("IKE_SA {connection}[{ike}] established");
        }
        E::IkeDeleted {
            ike,
            connection,
            reason,
        } => {
            tracing::info!("IKE_SA {connection}[{ike}] deleted: {reason}");
        }
        E::IkeRekeyed { old, new } => tracing::info!("IKE_SA [{old}] rekeyed to [{new}]"),
        E::IkeResumed { old, new } => {
            tracing::info!("IKE_SA [{old}] resumed by ticket as [{new}]");
        }
        // They go to their file.
        E::Keys(_) => {}
        E::ChildEstablished { sa, child, .. } => {
            tracing::info!("CHILD_SA {child}{{{sa}}} established");
        }
        E::ChildDeleted { sa, child, .. } => tracing::info!("CHILD_SA {child}{{{sa}}} closed"),
        E::ChildRekeyed { old, new, .. } => {
            tracing::info!("CHILD_SA {{{old}}} rekeyed to {{{new}}}");
        }
        E::AuthenticationFailed { peer, reason } => {
            tracing::warn!("authentication with {peer} failed: {reason}");
        }
        E::NegotiationFailed { peer, reason } => {
            tracing::warn!("negotiation with {peer} failed: {reason}");
        }
        // Anybody can cause these; they are counted.
        E::Dropped { peer, reason } => tracing::debug!(%peer, reason, "IKE message dropped"),
        E::Relocated { ike, local, remote } => {
            tracing::info!("IKE_SA [{ike}] goes on between {local} and {remote}")
        }
        E::MessageIdSyncSent { .. }
        | E::MessageIdSynced { .. }
        | E::ReplayCounterSync { .. }
        | E::ReplayCounterSyncSent { .. }
        | E::LivenessConfirmed { .. } => tracing::info!(?event, "IKE"),
    }
}

/// journald stamps the time itself and reads the priority from the start of the line
/// (sd-daemon(3)).
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        for span in context.event_scope().into_iter().flatten() {
            write!(writer, "{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, "{{{fields}}}")?;
            }
            write!(writer, ": ")?;
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// syslog(3)'s numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journald_gets_a_priority_and_no_time() {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Journal)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(member = 2, "silent");
            tracing::info_span!("ike", name = "gw").in_scope(|| tracing::info!("established"));
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "<4>silent member=2\n<6>ike{name=\"gw\"}: established\n"
        );
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(start("info,hitless=loud=3").is_err());
    }
}
