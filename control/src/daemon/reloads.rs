//! `reload`: the file with the keys, certificates and lists that it names is read on a thread of its own,
//! and what is slow by intent is computed there: the control thread has heartbeats to send.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use signal_hook::consts::SIGHUP;

use super::crls::CrlFiles;
use crate::api::ClientId;
use crate::clock;
use crate::config::{AsOf, Config};
use crate::gateway::{ClusterSecret, GatewaySettings};

/// What was read.
pub(super) struct Loaded {
    pub config: Config,
    pub crls: CrlFiles,
    pub secret: ClusterSecret,
}

type Outcome = Result<Loaded, String>;

/// Whoever wants a reload, and the one that is under way.
#[derive(Default)]
pub(super) struct Reloads {
    /// For whom.
    running: Option<(JoinHandle<Outcome>, Vec<ClientId>)>,
    /// The file may have changed since it was read for others.
    next: Vec<ClientId>,
    /// SIGHUP came, as for most daemons.
    signalled: Arc<AtomicBool>,
}

impl Reloads {
    /// These, and one for each SIGHUP.
    pub fn on_signal() -> io::Result<Reloads> {
        let reloads = Reloads::default();
        signal_hook::flag::register(SIGHUP, Arc::clone(&reloads.signalled))?;
        Ok(reloads)
    }

    pub fn ask(&mut self, client: ClientId) {
        self.next.push(client);
    }

    /// Begins what was asked for; gives what was read, and for whom.
    pub fn poll(
        &mut self,
        path: impl FnOnce() -> Option<PathBuf>,
    ) -> Option<(Outcome, Vec<ClientId>)> {
        match self.running.take() {
            Some((thread, clients)) if thread.is_finished() => {
                let broken = |_| Err("reading the file failed; look at the log".to_owned());
                return Some((thread.join().unwrap_or_else(broken), clients));
            }
            running @ Some(_) => self.running = running,
            None if !self.signalled.swap(false, Ordering::Relaxed) && self.next.is_empty() => {}
            None => {
                let clients = std::mem::take(&mut self.next);
                let Some(path) = path() else {
                    let reason = "the daemon was started without a file";
                    return Some((Err(reason.to_owned()), clients));
                };
                let name = "reload".to_owned();
                match thread::Builder::new().name(name).spawn(move || load(&path)) {
                    Ok(thread) => self.running = Some((thread, clients)),
                    Err(error) => {
                        return Some((
                            Err(format!("no thread to read the file: {error}")),
                            clients,
                        ));
                    }
                }
            }
        }
        None
    }
}

fn load(path: &Path) -> Outcome {
    let config = Config::load_as_of(path, AsOf::Warn(clock::time_of_day()));
    let config = config.map_err(|error| error.render(false))?;
    Ok(Loaded {
        crls: CrlFiles::of(&config),
        secret: GatewaySettings::cluster_secret_of(&config),
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next outcome, whenever the thread has it.
    fn outcome(reloads: &mut Reloads, path: &Path) -> (Outcome, Vec<ClientId>) {
        loop {
            if let Some(done) = reloads.poll(|| Some(path.to_owned())) {
                return done;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn who_asks_while_a_file_is_read_has_it_read_again() {
        let nowhere = Path::new("/nonexistent/gateway.toml");
        let mut reloads = Reloads::default();
        assert!(reloads.poll(|| None).is_none(), "nobody asked");
        reloads.ask(ClientId(1));
        reloads.ask(ClientId(2));
        assert!(reloads.poll(|| Some(nowhere.to_owned())).is_none());
        reloads.ask(ClientId(3));
        let (read, clients) = outcome(&mut reloads, nowhere);
        assert!(read.is_err_and(|reason| reason.contains("/nonexistent/gateway.toml")));
        assert_eq!(clients, [ClientId(1), ClientId(2)]);
        assert_eq!(outcome(&mut reloads, nowhere).1, [ClientId(3)]);
        assert!(reloads.poll(|| None).is_none());
        reloads.signalled.store(true, Ordering::Relaxed);
        assert!(reloads.poll(|| Some(nowhere.to_owned())).is_none());
        assert!(outcome(&mut reloads, nowhere).1.is_empty(), "for nobody");
        assert!(reloads.poll(|| None).is_none(), "once");
        reloads.ask(ClientId(4));
        let (read, _) = reloads.poll(|| None).unwrap();
        assert!(read.is_err_and(|reason| reason.contains("without a file")));
    }
}
