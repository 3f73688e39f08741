//! Opens the ports of the workers.

use std::sync::Arc;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::Port;
use hitless_dataplane::port::af_xdp::{AfXdpMode, AfXdpPort, AfXdpSettings, Attachment};

use super::DaemonError;
use crate::config::{Driver, PortConfig, XdpMode};

/// What the workers' queues of one port share: its XDP program.
#[derive(Default)]
pub struct Opener {
    attachments: Vec<Arc<Attachment>>,
}

impl Opener {
    /// The queues of one worker, one of each port, in the order of the configuration.
    pub fn open(
        &mut self,
        ports: &[PortConfig],
        worker: usize,
        pool: &mut Pool,
    ) -> Result<Vec<Box<dyn Port>>, DaemonError> {
        let mut opened: Vec<Box<dyn Port>> = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            match port.driver {
                Driver::AfXdp => opened.push(Box::new(self.af_xdp(index, port, worker, pool)?)),
                Driver::Memory => return Err(DaemonError::MemoryPort(port.name.clone())),
            }
        }
        Ok(opened)
    }

    fn af_xdp(
        &mut self,
        index: usize,
        port: &PortConfig,
        worker: usize,
        pool: &mut Pool,
    ) -> Result<AfXdpPort, DaemonError> {
        let queue = port.queues.get(worker).copied().unwrap_or(0);
        let settings = AfXdpSettings {
            queue,
            mode: match port.mode {
                XdpMode::Auto => AfXdpMode::Auto,
                XdpMode::Native => AfXdpMode::Native,
                XdpMode::Skb => AfXdpMode::Skb,
            },
            addresses: port.addresses.iter().map(|p| p.address).collect(),
            ..AfXdpSettings::new(port.interface.as_str(), port.mac)
        };
        let opened = match self.attachments.get(index) {
            Some(attachment) => AfXdpPort::join(attachment, queue, pool),
            None => AfXdpPort::open(&settings, pool),
        };
        let opened = opened.map_err(|error| DaemonError::Port {
            name: port.name.clone(),
            error,
        })?;
        if self.attachments.len() == index {
            self.attachments.push(Arc::clone(opened.attachment()));
        }
        Ok(opened)
    }
}
