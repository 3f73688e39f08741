//! Builds the C shim of the `dpdk` port, and nothing without that feature.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk::build();
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use std::process::Command;

    const SHIM: &str = "src/port/dpdk/shim.c";

    pub fn build() {
        println!("cargo::rerun-if-changed={SHIM}");
        // Poll-mode drivers are plug-ins that EAL loads by itself, so only these are linked.
        let library = pkg_config::Config::new()
            .atleast_version("22.11")
            .cargo_metadata(false)
            .probe("libdpdk")
            .unwrap_or_else(|error| {
                panic!("the feature `dpdk` needs Debian's libdpdk-dev (22.11 or later): {error}")
            });
        let mut shim = cc::Build::new();
        shim.file(SHIM).includes(&library.include_paths);
        // `-include rte_config.h -march=...`, which the crate leaves out.
        let mut flags = other_flags().into_iter();
        while let Some(flag) = flags.next() {
            shim.flag(&flag);
            if flag == "-include" {
                shim.flags(flags.next());
            }
        }
        shim.compile("hitless_dpdk_shim");
        for path in &library.link_paths {
            println!("cargo::rustc-link-search=native={}", path.display());
        }
        for name in ["eal", "ethdev", "mbuf", "mempool", "ring"] {
            println!("cargo::rustc-link-lib=dylib=rte_{name}");
        }
    }

    fn other_flags() -> Vec<String> {
        let output = Command::new("pkg-config")
            .args(["--cflags-only-other", "libdpdk"])
            .output()
            .expect("pkg-config ran a moment ago");
        let text = String::from_utf8(output.stdout).expect("flags are ASCII");
        text.split_whitespace().map(str::to_owned).collect()
    }
}
