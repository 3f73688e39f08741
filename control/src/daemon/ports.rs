//! Opens the ports of the workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::Port;
use hitless_dataplane::port::af_packet::{AfPacketPort, AfPacketSettings};
use hitless_dataplane::port::af_xdp::{AfXdpPort, AfXdpSettings, Attachment};
use hitless_dataplane::port::pcap::{PcapPort, PcapSettings};
use hitless_dataplane::port::tap::{TapPort, TapSettings};

use super::DaemonError;
use super::error::PortError;
use crate::clock;
use crate::config::{AfXdpConfig, Driver, PcapConfig, PortConfig};

/// What the workers' queues of one port share, and what their drivers came to.
#[derive(Default)]
pub struct Opener {
    /// By the position of the port in the configuration.
    attachments: BTreeMap<usize, Arc<Attachment>>,
    /// Of each port, the modes of its queues without repetition.
    modes: Vec<Vec<&'static str>>,
}

impl Opener {
    /// The queues of one worker, one of each port, in the order of the configuration.
    pub fn open(
        &mut self,
        ports: &[PortConfig],
        worker: usize,
        pool: &mut Pool,
    ) -> Result<Vec<Box<dyn Port>>, DaemonError> {
        self.modes.resize_with(ports.len(), Vec::new);
        let mut opened = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let queue = self.queue(index, port, worker, pool);
            let queue = queue.map_err(|error| DaemonError::Port {
                name: port.name.clone(),
                error,
            })?;
            if let Some(modes) = self.modes.get_mut(index)
                && !modes.contains(&queue.mode())
            {
                modes.push(queue.mode());
            }
            opened.push(queue);
        }
        Ok(opened)
    }

    /// What the driver of each port came to; workers may differ.
    pub fn into_modes(self) -> Vec<String> {
        self.modes.iter().map(|modes| modes.join("/")).collect()
    }

    fn queue(
        &mut self,
        index: usize,
        port: &PortConfig,
        worker: usize,
        pool: &mut Pool,
    ) -> Result<Box<dyn Port>, PortError> {
        let several = port.queues.len() > 1;
        Ok(match &port.driver {
            Driver::AfXdp(config) => {
                let queue = port.queues.get(worker).copied().unwrap_or(0);
                Box::new(self.af_xdp(index, port, config, queue, pool)?)
            }
            Driver::AfPacket => {
                let settings = AfPacketSettings {
                    interface: port.interface.clone(),
                    mac: port.mac,
                    addresses: port.addresses.iter().map(|p| p.address).collect(),
                    queues: port.queues.len() as u32,
                };
                Box::new(AfPacketPort::open(&settings, pool)?)
            }
            Driver::Tap { mtu } => {
                let settings = TapSettings {
                    interface: port.interface.clone(),
                    mtu: *mtu,
                    several,
                };
                Box::new(TapPort::open(&settings, pool)?)
            }
            Driver::Pcap(config) => Box::new(PcapPort::open(&capture(config))?),
            Driver::Memory => return Err(PortError::Memory),
        })
    }

    fn af_xdp(
        &mut self,
        index: usize,
        port: &PortConfig,
        config: &AfXdpConfig,
        queue: u32,
        pool: &mut Pool,
    ) -> Result<AfXdpPort, PortError> {
        if let Some(attachment) = self.attachments.get(&index) {
            return Ok(AfXdpPort::join(attachment, queue, pool)?);
        }
        let settings = AfXdpSettings {
            queue,
            mode: config.mode,
            zero_copy: config.zero_copy,
            addresses: port.addresses.iter().map(|p| p.address).collect(),
            ring_size: config.ring_size,
            ..AfXdpSettings::new(port.interface.as_str(), port.mac)
        };
        let opened = AfXdpPort::open(&settings, pool)?;
        self.attachments
            .insert(index, Arc::clone(opened.attachment()));
        Ok(opened)
    }
}

fn capture(config: &PcapConfig) -> PcapSettings {
    PcapSettings {
        input: config.read.clone(),
        output: config.write.clone(),
        pace: config.pace,
        mtu: config.mtu,
        clock: clock::time_of_day,
    }
}
