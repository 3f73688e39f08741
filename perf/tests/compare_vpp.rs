//! `hitless-perf compare --vpp` with a stand-in for VPP: two scripts that answer as VPP's documentation
//! says. They show that it is started, configured, read and ended, not how fast it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const VPP: &str = r#"#!/bin/bash
[ "$1" = -c ] && [ -f "$2" ] || exit 9
cp "$2" "$(dirname "$0")/startup.conf"
echo $$ >"$(dirname "$0")/pid"
exec sleep 60
"#;
const VPPCTL: &str = r#"#!/bin/bash
shift 2
echo "$*" >>"$(dirname "$0")/commands"
case "$*" in
  "show version") echo "vpp v26.06-stand-in built by nobody" ;;
  "show cpu") echo "Base frequency:           2.00 GHz" ;;
  "create ipip tunnel"*) echo ipip0 ;;
  "packet-generator new"*)
    for word; do [ ! -f "$word" ] || cat "$word" >>"$(dirname "$0")/captures"; done
    case "$*" in *encrypt*) echo encrypt pg1 ;; *) echo decrypt pg0 ;; esac >"$(dirname "$0")/now" ;;
  "show runtime")
    read -r crypt out <"$(dirname "$0")/now"
    echo "esp4-$crypt-tun   active   1000   256000   0   1.50e2   256.00"
    echo "pg-input         polling   1000   256000   0   5.00e1   256.00"
    echo "$out-tx           active   1000   256000   0   2.00e1   256.00" ;;
esac
"#;

/// A directory that VPP might be installed in; it goes away.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str, programs: &[(&str, &str)]) -> Installed {
        let path = std::env::temp_dir().join(format!("hitless-vpp-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("bin")).unwrap();
        for (program, text) in programs {
            let program = path.join("bin").join(program);
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Installed(path)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join("bin").join(name)).unwrap()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn compare(vpp: &Path) -> Value {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_hitless-perf"))
        .args([
            "compare", "--only", "vpp", "--rounds", "1", "--json", "--vpp",
        ])
        .arg(vpp)
        .env("SECONDS_EACH", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_vpp_is_started_configured_measured_and_ended() {
    let installed = Installed::new("whole", &[("vpp", VPP), ("vppctl", VPPCTL)]);
    let said = compare(&installed.0);
    let lines = said["lines"].as_array().unwrap();
    let theirs: Vec<&Value> = lines
        .iter()
        .filter(|line| line["what"] == "VPP v26.06-stand-in, all nodes")
        .collect();
    assert_eq!(theirs.len(), 6, "{said}");
    // 150 clocks at 2 GHz.
    assert!(theirs.iter().all(|line| line["ns"] == 75.0), "{said}");
    let commands = installed.read("commands");
    for expected in [
        "ipsec sa add 1 spi 33554432 esp crypto-alg aes-gcm-128 crypto-key 09090909090909090909090909090909 salt 0x09090909",
        "ipsec tunnel protect ipip0 sa-in 2 sa-out 1",
        "packet-generator delete decrypt-1400",
    ] {
        assert!(commands.contains(expected), "{commands}");
    }
    assert!(
        installed
            .read("startup.conf")
            .contains("plugin default { disable }")
    );
    // It is not running any more.
    let pid = installed.read("pid");
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn what_is_wrong_with_a_vpp_is_said() {
    let refuses = VPPCTL.replace(
        "\"create ipip tunnel\"*) echo ipip0",
        "ipsec\\ sa*) echo unknown input",
    );
    let ends = "#!/bin/bash\necho cannot open shared object >&2\nexit 1\n";
    for (name, programs, expected) in [
        ("empty", vec![], "no program vpp in"),
        (
            "ends",
            vec![("vpp", ends), ("vppctl", "#!/bin/bash\nexit 1\n")],
            "cannot open shared object",
        ),
        (
            "refuses",
            vec![("vpp", VPP), ("vppctl", refuses.as_str())],
            "VPP refuses `ipsec sa add 1",
        ),
    ] {
        let installed = Installed::new(name, &programs);
        let said = compare(&installed.0);
        let missing = said["missing"].to_string();
        assert!(missing.contains(expected), "{name}: {missing}");
    }
}
