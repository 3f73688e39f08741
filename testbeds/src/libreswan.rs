//! Another real peer: libreswan's pluto in a namespace. Its packages conflict with strongSwan's, so it
//! runs from where `testbeds/libreswan` has unpacked it, with its own libraries, under a bind mount
//! that only it sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::process::{Process, Program};

const READY: Duration = Duration::from_secs(15);
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const NO_ESP: &str = include_str!("scenarios/libreswan/no_esp.c");

/// Where it lies unpacked (`testbeds/libreswan`).
pub fn root() -> Option<PathBuf> {
    std::env::var_os("HITLESS_LIBRESWAN").map(PathBuf::from)
}

/// A running pluto.
#[derive(Debug)]
pub struct Libreswan {
    pluto: Process,
    root: PathBuf,
    directory: PathBuf,
}

impl Libreswan {
    /// Starts pluto in `namespace`, with these lines of `ipsec.secrets`, and with the certificate,
    /// its key and its authority's certificate that a PKCS#12 file holds. Its files and its log go to
    /// `directory`.
    pub fn start(
        root: &Path,
        namespace: &Namespace,
        directory: &Path,
        secrets: &str,
        pkcs12: &Path,
    ) -> Result<Self, LabError> {
        let write = |file: &str, text: &str| {
            std::fs::write(directory.join(file), text)
                .map_err(LabError::io("writing pluto's files"))
        };
        for part in ["nss", "run"] {
            std::fs::create_dir_all(directory.join(part))
                .map_err(LabError::io("making pluto's directories"))?;
        }
        let shown = directory.display();
        write(
            "ipsec.conf",
            &format!("config setup\n\tnssdir={shown}/nss\n"),
        )?;
        write("ipsec.secrets", secrets)?;
        write("no_esp.c", NO_ESP)?;
        let library = directory.join("no_esp.so").display().to_string();
        let source = directory.join("no_esp.c").display().to_string();
        Program::new(["cc", "-shared", "-fPIC", "-o", &library, &source, "-ldl"]).run()?;

        let database = format!("sql:{shown}/nss");
        let tool = |words: &[&str]| {
            let program = root.join("usr/bin").join(words[0]).display().to_string();
            let words = words.iter().skip(1).map(|word| (*word).to_owned());
            Program::new(std::iter::once(program).chain(words))
                .env("LD_LIBRARY_PATH", root.join(LIBRARIES))
                .run()
        };
        let file = pkcs12.display().to_string();
        tool(&["certutil", "-N", "-d", &database, "--empty-password"])?;
        tool(&["pk12util", "-i", &file, "-d", &database, "-W", ""])?;
        tool(&[
            "certutil", "-M", "-n", "ca - lab", "-t", "CT,,", "-d", &database,
        ])?;

        // What pluto allocates an SPI for stays larval without ESP: the kernel must not expire it.
        namespace.sysctl("net.core.xfrm_acq_expires", "3600")?;
        let start = format!(
            "mount --bind {root}/usr/libexec /usr/libexec && \
             LD_LIBRARY_PATH={root}/{LIBRARIES} LD_PRELOAD={library} exec /usr/libexec/ipsec/pluto \
             --nofork --stderrlog --use-xfrm --config {shown}/ipsec.conf \
             --secretsfile {shown}/ipsec.secrets --rundir {shown}/run --ipsecdir {shown} \
             --nssdir {shown}/nss --no-dnssec --nhelpers 0",
            root = root.display()
        );
        let pluto = Program::new(["unshare", "-m", "sh", "-c", &start])
            .inside(namespace)
            .spawn("pluto", directory)?;
        let mut peer = Self {
            pluto,
            root: root.to_owned(),
            directory: directory.to_owned(),
        };
        clock::until("pluto's control socket", READY, || {
            peer.pluto.check_running()?;
            Ok(directory.join("run/pluto.ctl").exists().then_some(()))
        })?;
        peer.whack(&["--listen"])?;
        Ok(peer)
    }

    /// Runs `whack <words>` and gives all that it says: its exit status is that of its last line.
    pub fn whack(&self, words: &[&str]) -> Result<String, LabError> {
        let whack = self.root.join("usr/libexec/ipsec/whack");
        let run = self.directory.join("run").display().to_string();
        let program = whack.display().to_string();
        let shell = ["sh", "-c", "timeout 15 \"$@\" 2>&1 || true", "whack"];
        let first = shell
            .into_iter()
            .chain([program.as_str(), "--rundir", &run]);
        Program::new(first.chain(words.iter().copied()))
            .env("LD_LIBRARY_PATH", self.root.join(LIBRARIES))
            .run()
    }

    pub fn log(&self) -> String {
        self.pluto.log()
    }

    pub fn check_running(&mut self) -> Result<(), LabError> {
        self.pluto.check_running()
    }
}
