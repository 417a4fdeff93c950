//! Raw replay: files read and written to a socket, nothing else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes read and written at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Creates `files` files of `bytes` bytes, then serves until killed: each connection names a
/// file by 8 bytes, gets it whole and is closed.
///
/// # Errors
/// What the disk or the network refused.
pub fn serve(dir: &Path, files: u64, bytes: u64) -> io::Result<()> {
    let path = |number: u64| dir.join(format!("replay-{number}"));
    let mut chunk = vec![b'x'; CHUNK_BYTES];
    for number in 0..files {
        let mut file = File::create(path(number))?;
        let mut left = bytes as usize;
        while left > 0 {
            let part = left.min(chunk.len());
            file.write_all(&chunk[..part])?;
            left -= part;
        }
        file.sync_all()?;
    }
    let listener = super::listen()?;
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut number = [0; 8];
        stream.read_exact(&mut number)?;
        let mut file = File::open(path(u64::from_le_bytes(number)))?;
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                bytes => stream.write_all(&chunk[..bytes])?,
            }
        }
    }
}
