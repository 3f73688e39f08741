//! What of a configuration can change while the daemon runs.

use super::model::Config;

impl Config {
    /// The sections in which `other` differs from this one though they need a restart.
    pub fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        let shown = |config: &Config| format!("{:?}", config.cluster);
        let cluster =
            self.cluster.secret() == other.cluster.secret() && shown(self) == shown(other);
        let sections = [
            ("[cluster]", cluster),
            ("[ports]", self.ports == other.ports),
            ("[dataplane]", self.dataplane == other.dataplane),
            ("[pools]", self.pools == other.pools),
            ("[control]", self.control == other.control),
        ];
        let changed = sections.into_iter().filter(|(_, same)| !same);
        changed.map(|(name, _)| name).collect()
    }
}
