//! Runs a program with the network cut off, loopback aside, and with everything that it
//! starts ended when it ends: a network and process namespace of its own.
//!
//! A fixed port is always free inside, so documents may name theirs.

use std::path::Path;

use crate::command::Call;
use crate::needs;

/// A call of `program` inside the cage; after `seconds` everything in it is killed.
pub fn call(seconds: u32, dir: &Path, program: &Path, args: &[&str]) -> Call {
    let mut words: Vec<String> =
        ["--signal=KILL", &seconds.to_string(), "unshare"].map(String::from).to_vec();
    if !needs::is_root() {
        words.extend(["--user", "--map-root-user"].map(String::from));
    }
    words.extend(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"].map(String::from));
    words.extend(["sh", "-c", "ip link set lo up && exec \"$@\"", "cage"].map(String::from));
    words.push(program.to_string_lossy().into_owned());
    words.extend(args.iter().map(ToString::to_string));
    Call::new("timeout").args(words).dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_there_is_a_loopback_device_and_no_other() {
        let script = "ip -brief link | cut -d' ' -f1";
        let here = Path::new("/");
        let seen = call(20, here, Path::new("sh"), &["-c", script]).output().unwrap();
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["lo"]);
    }
}
