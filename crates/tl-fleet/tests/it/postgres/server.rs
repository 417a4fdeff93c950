//! A real Postgres for the tests of this process: made when first asked for, gone with the
//! process, however that ends.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Makes a database in a folder of its own and serves it on a socket in that folder. It lives
/// until its input ends, which the end of the test process sees to, and then clears up. Nothing
/// here outlives a power cut, so nothing is synced.
const SERVE: &str = r#"
set -eu
dir=$(mktemp -d /tmp/throughline-fleet-pg.XXXXXX)
"$1/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
tls=
if [ -n "$3" ]; then
  cp "$3/server.pem" "$3/server.key" "$dir"
  chmod 600 "$dir/server.key"
  tls="-c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key"
fi
"$1/postgres" -D "$dir/data" -c listen_addresses= -c port="$2" -c unix_socket_directories="$dir" \
  -c fsync=off -c max_connections=300 -c shared_buffers=64MB $tls >>"$dir/log" 2>&1 </dev/null &
pid=$!
until "$1/pg_isready" -q -h "$dir" -p "$2" -U postgres; do
  kill -0 $pid || { cat "$dir/log" >&2; exit 1; }
  sleep 0.05
done
echo "$dir"
cat >/dev/null
kill -INT $pid
wait $pid || true
rm -rf "$dir"
"#;

pub struct Server {
    /// Where its socket is.
    pub folder: PathBuf,
    /// Holds the pipe that keeps it alive.
    _shell: Child,
}

/// The one server of this process.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

/// A server of its own, for a test that harms it. It ends when this is dropped.
pub fn start() -> Server {
    start_with(5432, Path::new(""))
}

/// One that speaks TLS at a port of this machine too, with `server.pem` and `server.key` of a
/// folder that everybody may read.
pub fn start_with_tls(port: u16, certificates: &Path) -> Server {
    start_with(port, certificates)
}

fn start_with(port: u16, certificates: &Path) -> Server {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root {
        // Postgres does not run as root.
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", SERVE, "sh"]).arg(programs()).arg(port.to_string());
    command.arg(certificates).current_dir("/");
    let mut shell = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell can be started, as user postgres when root");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "Postgres did not start; see above");
    Server { folder: line.trim_end().into(), _shell: shell }
}

/// The folder of the newest Postgres; Debian does not put it on the path.
fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/postgres").is_file().then(|| (version, path.join("bin")))
        })
        .collect();
    versions.sort();
    versions.pop().expect("Debian's package postgresql is installed; `cargo xtask test` does it").1
}

impl Server {
    /// Its address, with every database user allowed.
    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.display())
    }
}
